"""The processors that come with the server. They enter by the same door as a stranger's."""
