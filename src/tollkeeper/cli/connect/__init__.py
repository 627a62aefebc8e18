"""The commands ``connect``: files and steps that put Tollkeeper into a switch's call path."""

from __future__ import annotations

from cyclopts import App

app = App(name="connect", help="Make the files that connect a switch.")
# Named, not imported: each command loads only what it needs.
app.command("tollkeeper.cli.connect.kamailio:kamailio", name="kamailio")
app.command("tollkeeper.cli.connect.freeswitch:freeswitch", name="freeswitch")
app.command("tollkeeper.cli.connect.asterisk:asterisk", name="asterisk")
app.command("tollkeeper.cli.connect.vos3000:vos3000", name="vos3000")
