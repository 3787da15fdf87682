"""What a hook of ingest may say: a function (content, media type) -> content, which may refuse."""


class Refused(Exception):
    """This sample must not be stored; the text says why, to whoever sent it."""
