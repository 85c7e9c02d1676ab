"""GNU Mailman, as its neighbour sees it: which addresses are a list's, and how mail is handed over."""
