"""Every script under ``tests/dialogues/``, run whole, octet by octet, and cut at every place."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from smtpserv.testing import at_every_split, read_script

SCRIPTS = sorted(Path(__file__).with_name("dialogues").glob("*.smtp"))


class DialogueScripts(SynchronousTestCase):
    """One test for each script."""

    def check(self, path: Path) -> None:
        """The same replies and the same octets, however the network splits them."""
        script = read_script(path.read_text("utf-8"))
        for pieces in at_every_split(script.spoken):
            script.check(pieces)


for _path in SCRIPTS:
    setattr(DialogueScripts, f"test_{_path.stem}", lambda self, path=_path: self.check(path))
