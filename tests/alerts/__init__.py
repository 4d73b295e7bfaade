"""Every alert fires when it should, and stays quiet when it should."""
