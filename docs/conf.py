"""Sphinx configuration. Nothing in here needs the network."""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from docutils import nodes  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import katcp_tornado  # noqa: E402
import katcp_tornado.testing  # noqa: E402

project = "katcp_tornado"
author = "The katcp_tornado authors"
copyright = author
version = release = katcp_tornado.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "bench_plots",
    "command_help",
    "guidelines",
    "herd_plots",
    "house",
    "state_diagram",
]
exclude_patterns = ["_build", "_ext", "examples"]
html_theme = "furo"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
html_title = f"katcp_tornado {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]

man_pages = [("reference/command", "katcp-tornado", "talk to KATCP devices: ask, watch, measure, record", [author], 1)]

# Single back-quotes are references, as in Tornado: `.Client.request`.
default_role = "py:obj"
nitpicky = True
add_module_names = False
python_maximum_signature_line_length = 80
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
doctest_global_setup = "import random\nfrom katcp_tornado import *"

# What is documented elsewhere, and where. There is no inventory to look it up in: that would need the network.
PYTHON = "https://docs.python.org/3/library/"
TORNADO = "https://www.tornadoweb.org/en/stable/"
ELSEWHERE = {
    "_asyncio.Future": PYTHON + "asyncio-future.html#asyncio.Future",
    "asyncio.Future": PYTHON + "asyncio-future.html#asyncio.Future",
    "enum.Enum": PYTHON + "enum.html#enum.Enum",
    "ipaddress.IPv4Address": PYTHON + "ipaddress.html#ipaddress.IPv4Address",
    "collections.abc.Sequence": PYTHON + "collections.abc.html#collections.abc.Sequence",
    "concurrent.futures.Future": PYTHON + "concurrent.futures.html#concurrent.futures.Future",
    "ipaddress.IPv6Address": PYTHON + "ipaddress.html#ipaddress.IPv6Address",
    "logging.Logger": PYTHON + "logging.html#logging.Logger",
    "numbers.Integral": PYTHON + "numbers.html#numbers.Integral",
    "numbers.Real": PYTHON + "numbers.html#numbers.Real",
    "random": PYTHON + "random.html",
    "random.Random": PYTHON + "random.html#random.Random",
    "repr": PYTHON + "functions.html#repr",
    "socket.gaierror": PYTHON + "socket.html#socket.gaierror",
    "ssl.SSLContext": PYTHON + "ssl.html#ssl.SSLContext",
    "ssl.SSLCertVerificationError": PYTHON + "ssl.html#ssl.SSLCertVerificationError",
    "tornado.gen.with_timeout": TORNADO + "gen.html#tornado.gen.with_timeout",
    "tornado.ioloop.IOLoop": TORNADO + "ioloop.html#tornado.ioloop.IOLoop",
    "tornado.ioloop.IOLoop.close": TORNADO + "ioloop.html#tornado.ioloop.IOLoop.close",
    "tornado.ioloop.IOLoop.call_later": TORNADO + "ioloop.html#tornado.ioloop.IOLoop.call_later",
    "tornado.ioloop.IOLoop.run_in_executor": TORNADO + "ioloop.html#tornado.ioloop.IOLoop.run_in_executor",
    "tornado.ioloop.IOLoop.run_sync": TORNADO + "ioloop.html#tornado.ioloop.IOLoop.run_sync",
    "tornado.ioloop.IOLoop.start": TORNADO + "ioloop.html#tornado.ioloop.IOLoop.start",
    "tornado.iostream.IOStream": TORNADO + "iostream.html#tornado.iostream.IOStream",
    "tornado.iostream.IOStream.set_nodelay": TORNADO + "iostream.html#tornado.iostream.BaseIOStream.set_nodelay",
    "tornado.netutil.Resolver": TORNADO + "netutil.html#tornado.netutil.Resolver",
    "tornado.web.Application": TORNADO + "web.html#tornado.web.Application",
    "tornado.httputil.HTTPServerRequest": TORNADO + "httputil.html#tornado.httputil.HTTPServerRequest",
    "tornado.tcpserver.TCPServer": TORNADO + "tcpserver.html#tornado.tcpserver.TCPServer",
}
# Types in signatures that every reader knows, or that only type checkers care for.
PLAIN = re.compile(
    r"(typing\.|collections\.abc\.)?"
    r"(int|float|str|bytes|bytearray|memoryview|bool|dict|list|tuple|frozenset|object|type|None|Any|Optional|Union"
    r"|Callable|Awaitable|Iterable|Iterator|Mapping|TracebackType)|(typing_extensions\.)?Self|C|T"
    r"|types\.TracebackType|Connecting|ClientOptions|(katcp_tornado\.groups(\.reply)?\.)?R|katcp_codec\._lib\.Message|tornado\.concurrent\.Future"
    r"|Arguments|Handler"
)
EXCEPTIONS = {name for name in vars(builtins) if re.search(r"(Error|Exception|Warning|Interrupt)$", name)}


def elsewhere(target: str) -> str | None:
    """The address of something that is documented elsewhere."""
    if target in EXCEPTIONS:
        return f"{PYTHON}exceptions.html#{target}"
    for name, address in ELSEWHERE.items():
        if name == target or name.endswith(f".{target}"):
            return address
    return None


def find_reference(app: Sphinx, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """Resolve what Sphinx cannot: our own names where they are defined, and what others document."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    if target == "katcp_codec.MessageType":
        target = "katcp_tornado.MessageType"
    if target.startswith("katcp_tornado.") or target in katcp_tornado.__all__:
        return own_reference(app, env, node, contnode, target)
    address = elsewhere(target)
    if address is not None:
        return nodes.reference("", "", contnode, internal=False, refuri=address)
    return contnode if PLAIN.fullmatch(target) else None


def own_reference(app: Sphinx, env: Any, node: Any, contnode: nodes.Element, target: str) -> nodes.Element | None:
    """From the module in which a name is defined to the one that promises it."""
    name = target.rpartition(".")[2]
    for module in (katcp_tornado, katcp_tornado.testing):
        if name in module.__all__:
            full = f"{module.__name__}.{name}"
            domain = env.get_domain("py")
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)
    return contnode if PLAIN.fullmatch(name) else None


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Defaults as one would write them."""
    if signature is not None:
        signature = re.sub(r"Backoff\(first=[^)]*\)", "Backoff()", signature)
        signature = re.sub(r"\b33554432\b", "32 * 1024**2", signature)
        signature = re.sub(r"\b268435456\b", "256 * 1024**2", signature)
    return signature, result


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", find_reference)
    app.connect("autodoc-process-signature", shorten_signature)
