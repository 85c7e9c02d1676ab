"""The SMTP conversation as pure functions of octets: no network, no clock, no log.

It imports nothing but the standard library and the package's values, and so runs under any event loop,
or in a fuzzer, as it stands.
"""
