"""Ready redactors find what they are for; one that fails loses the text and never lets it through."""

from __future__ import annotations

import logging
import pickle
import socket
import time
from typing import Any

import pytest

from lstm_trace import Settings
from lstm_trace.redact import WITHHELD, Ready, redactor, safely


@pytest.fixture(autouse=True)
def _nobody_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a redactor asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


class TestPii:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("presidio_analyzer")

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("write to bob@example.com.", "write to <EMAIL_ADDRESS>."),
            ("write to bob@corp.local", "write to <EMAIL_ADDRESS>"),
            ("card 4111 1111 1111 1111 please", "card <CREDIT_CARD> please"),
            ("card 4111-1111-1111-1111", "card <CREDIT_CARD>"),
            ("to DE89 3704 0044 0532 0130 00", "to <IBAN_CODE>"),
            ("from 192.168.0.1", "from <IP_ADDRESS>"),
            ("from 2001:db8::8a2e:370:7334", "from <IP_ADDRESS>"),
            ("at 00:1b:63:84:45:e6", "at <MAC_ADDRESS>"),
            ("my number is 536-90-4399", "my number is <US_SSN>"),
            ("call +49 30 901820", "call <PHONE_NUMBER>"),
            ("call (212) 555-0199 or 212.555.0199", "call <PHONE_NUMBER> or <PHONE_NUMBER>"),
            ("rufen Sie 030/901820 an", "rufen Sie <PHONE_NUMBER> an"),
        ],
    )
    def test_what_it_finds(self, text: str, shown: str) -> None:
        assert redactor("pii")(text) == shown

    @pytest.mark.parametrize(
        "text", ["where is parcel 1234567?", "on 2026-11-21 10:00:01", "a loss of 0.123 0.456 0.789", "card 4111 1111 1111 1112", "Müller"]
    )
    def test_what_it_leaves(self, text: str) -> None:
        assert redactor("pii")(text) == text

    @pytest.mark.parametrize("text", ["1 " * 8_000, "x" * 16_000, "a.b." * 4_000, "a@b" * 4_000, "12345678 " * 2_000])
    def test_no_text_takes_long(self, text: str) -> None:
        redact = redactor("pii,secrets")
        redact("first")
        began = time.process_time()
        redact(text)
        assert time.process_time() - began < 2


class TestSecrets:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("detect_secrets")

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("key AKIA" + "IOSFODNN7EXAMPLE!", "key <SECRET>!"),
            ("gh" + "p_0123456789abcdefghijABCDEFGHIJ012345 it is", "<SECRET> it is"),
            ("github" + "_pat_11ABCDEFG0abcdefghijkl_xyz it is", "<SECRET> it is"),
            ("sk-" + "ant-" + "x" * 24 + " now", "<SECRET> now"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF123-_ now", "<SECRET> now"),
            ("my password is hunter22", "my password is <SECRET>"),
            ('password = "hunter2 with blanks"', 'password = "<SECRET>"'),
            ("api_key: abcd1234", "api_key: <SECRET>"),
            ("Authorization: Bearer abcdefghijklmnop", "Authorization: <SECRET>"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIabc\nxyz\n-----END RSA PRIVATE KEY-----\nbye", "<SECRET>\nbye"),
            ("-----BEGIN PRIVATE KEY-----\nMIIabc cut off", "<SECRET>"),
        ],
    )
    def test_what_it_finds(self, text: str, shown: str) -> None:
        assert redactor("secrets")(text) == shown

    def test_a_password_in_an_address_goes(self) -> None:
        assert "pw1234" not in redactor("secrets")("https://bob:pw1234@example.com/")

    @pytest.mark.parametrize("text", ["what is a token?", "Token count: 512", "the secret of the shelf", "https://example.com/a/b?c=d"])
    def test_what_it_leaves(self, text: str) -> None:
        assert redactor("secrets")(text) == text

    def test_what_stands_under_a_telling_key_is_hidden(self) -> None:
        hides = ("password", "db_password", "apiKey", "Authorization", "auth", "pin")
        shows = ("author", "max_tokens", "pinned", "opinion", "q")
        redact = redactor("secrets")
        assert isinstance(redact, Ready)
        assert [key for key in (*hides, *shows) if redact.hides(key)] == list(hides)

    def test_settings_with_it_travel_to_other_processes(self) -> None:
        settings = Settings(redact="secrets")
        assert pickle.loads(pickle.dumps(settings)) == settings == Settings(redact="secrets")


def of_the_tests(text: str) -> str:
    return text.upper()


class TestByName:
    def test_by_environment(self) -> None:
        pytest.importorskip("detect_secrets")
        settings = Settings.from_env({"LSTM_TRACE_REDACT": " secrets "})
        assert safely(settings.redact, "password: hunter22") == "password: <SECRET>"
        assert Settings.from_env({"LSTM_TRACE_REDACT": ""}).redact is None

    def test_a_function_of_the_users(self) -> None:
        redact = Settings.from_env({"LSTM_TRACE_REDACT": f"{__name__}:of_the_tests"}).redact
        assert safely(redact, "quiet") == "QUIET"

    @pytest.mark.parametrize("name", ["pij", "no_such_module:f", "lstm_trace:__name__", ","])
    def test_an_unusable_name_in_the_environment_withholds_every_text(self, name: str, caplog: Any) -> None:
        with caplog.at_level(logging.WARNING, logger="lstm_trace"):
            settings = Settings.from_env({"LSTM_TRACE_REDACT": name, "LSTM_TRACE_CONTENT": "on"})
        assert safely(settings.redact, "my card") == WITHHELD
        assert "every text is withheld" in caplog.text

    def test_an_unusable_name_in_code_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="redact='pij': accepted are pii, secrets"):
            Settings(redact="pij")
        with pytest.raises(ValueError, match="redact=3: accepted"):
            Settings(redact=3)  # type: ignore[arg-type]

    def test_a_library_that_is_not_installed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lstm_trace.redact.find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"pip install 'lstm-trace\[redact\]'"):
            redactor("pii")


@pytest.mark.parametrize("result", [None, 3, b"secret"])
def test_a_redactor_that_returns_no_text_loses_it(result: Any) -> None:
    assert safely(lambda text: result, "secret") == WITHHELD
