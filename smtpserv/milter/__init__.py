"""Talks to milters (rspamd, OpenDKIM, SpamAssassin and others) as Sendmail and Postfix do."""
