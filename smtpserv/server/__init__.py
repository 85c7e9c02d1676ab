"""The inbound side on Twisted: sessions, their deadlines, and the content they bring."""
