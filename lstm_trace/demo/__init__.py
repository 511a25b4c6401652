"""The claims-support agent: an LSTM intent classifier in front of a LangGraph agent, written as a user of lstm-trace would write it."""
