"""The console's link on its way to the banner."""

import os
import socket

from counterfoil_cli.sign_in import HandedOver, ask_for_link


def test_what_a_forked_child_leaves_its_parent_takes():
    handed = HandedOver()
    assert handed.take() == ""
    child = os.fork()
    if child == 0:
        handed.leave("http://127.0.0.1/a-longer-text-first")
        handed.leave("http://127.0.0.1/ü")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert handed.take() == "http://127.0.0.1/ü"


def test_a_gateway_that_gives_no_link_costs_only_the_link():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    assert ask_for_link(address, "cfk_none") == ""
