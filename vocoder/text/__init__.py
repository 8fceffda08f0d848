"""From English text to log-mel: the text frontend and the acoustic model."""
