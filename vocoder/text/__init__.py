"""From English text to audio: frontend, acoustic model, and the trip from sentences to audio."""
