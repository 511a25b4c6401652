"""Tables and verdicts as text on a terminal and as one self-contained page. What spans say is hostile and is shown as plain text."""
