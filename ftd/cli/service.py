"""``ftd service``: let systemd serve a home from boot on."""

from __future__ import annotations

import argparse
import os
import pwd
import shlex
import sys
from pathlib import Path

from ftd.cli.home import home_of
from ftd.cli.output import add_json, print_json
from ftd.daemon.presence import daemon_identity, without_daemon
from ftd.daemon.submit import asking_user
from ftd.errors import ConfigError
from ftd.files import seal
from ftd.layout import Home
from ftd.service.systemd import Manager, lingers
from ftd.service.unit import Unit, home_in
from ftd.views.phrases import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd service``."""
    parser.add_argument(
        "action",
        choices=ACTIONS,
        help="install: write the unit, enable and start it; uninstall: the reverse, nothing of the "
        "home is touched; status; checkpoint: ask all workers to save their state and leave, as "
        "before switching the machine off (no daemon may run)",
    )
    parser.add_argument(
        "--system", action="store_true", help="a unit of the system, not of the user's own"
    )
    parser.add_argument(
        "--run-as", metavar="USER", help="with --system: whose processes (default: you)"
    )
    parser.add_argument("--name", default="ftd", help="the unit's name (default ftd)")
    parser.add_argument(
        "--mount", metavar="PATH", action="append", default=[], type=Path,
        help="also wait until this is mounted; without it, runs wait for their data themselves",
    )  # fmt: skip
    parser.add_argument("--print", action="store_true", help="only print the unit")
    parser.add_argument(
        "--at-shutdown", action="store_true", help="checkpoint only if the machine is going down"
    )
    add_json(parser)
    parser.epilog = (
        "Stopping or restarting the service leaves runs at work; shutting the machine down lets "
        "them\ncheckpoint first.\n\n"
        "example:\n  ftd service install\n  ftd service status\n"
        "  sudo ftd --home /srv/ftd service install --system --run-as ann"
    )


def run(args: argparse.Namespace) -> int:
    """Carry out one action."""
    return ACTIONS[args.action](args)


def _install(args: argparse.Namespace) -> int:
    home, manager = home_of(args), Manager(args.system)
    unit = _unit(args, home)
    if args.print:
        sys.stdout.write(unit.text())
        return 0
    if not home.ledger.exists():
        raise ConfigError(f"there is no home at {home.root} yet", fix="Run 'ftd init' first")
    if unit.user is not None:
        _check_owner(home, unit.user)
    path = _file(args)
    _check_ours(path, home)
    _write(path, unit.text())
    print(f"wrote {path}")
    if unit.user is None and not lingers(asking_user()):
        print(
            "your services end when you log out and do not start at boot, until somebody types:\n"
            f"  sudo loginctl enable-linger {asking_user()}"
        )
    other = daemon_identity(home)
    if other is not None:
        print(f"a daemon runs already (pid {other['pid']}): stop it, the service then takes over")
    return _carry_out(manager, ["daemon-reload"], ["enable", "--now", path.name])


def _uninstall(args: argparse.Namespace) -> int:
    path = _file(args)
    if not path.exists():
        print(f"no service: there is no {path}")
        return 0
    _check_ours(path, home_of(args))
    manager = Manager(args.system)
    status = _carry_out(manager, ["disable", "--now", path.name])
    try:
        path.unlink()
    except OSError as error:
        raise _refused(path, error) from error
    print(f"removed {path}; runs at work go on")
    return max(status, _carry_out(manager, ["daemon-reload"]))


def _status(args: argparse.Namespace) -> int:
    path, manager = _file(args), Manager(args.system)
    served = _served(path)
    daemon = daemon_identity(home_of(args))
    found = {
        "unit": str(path) if served else None,
        "home": str(served) if served else None,
        "enabled": manager.says("is-enabled", path.name),
        "active": manager.says("is-active", path.name),
        "lingers": None if args.system else lingers(asking_user()),
        "daemon": daemon,
    }
    if args.json:
        print_json(found)
        return 0
    if served is None:
        print(f"no service: there is no {path}. 'ftd service install' makes it")
    else:
        print(f"{path} serves {served}: {found['enabled']}, {found['active']}")
    if found["lingers"] is False:
        print(f"it ends when you log out: sudo loginctl enable-linger {asking_user()}")
    print("no daemon is running" if daemon is None else f"daemon is running (pid {daemon['pid']})")
    return 0


def _checkpoint(args: argparse.Namespace) -> int:
    from ftd.daemon.workers import ask_to_leave, at_work

    home = home_of(args)
    if args.at_shutdown and not Manager(args.system).going_down():
        return 0
    with without_daemon(home):
        workers = at_work(home)
        print(f"asking {count(len(workers), 'worker')} to save and leave", flush=True)
        ask_to_leave(workers.values())
    print("all have left; the next daemon lets their runs go on")
    return 0


ACTIONS = {
    "install": _install,
    "uninstall": _uninstall,
    "status": _status,
    "checkpoint": _checkpoint,
}


def _unit(args: argparse.Namespace, home: Home) -> Unit:
    from ftd.config import load

    user = None
    if args.system:
        user = args.run_as or os.environ.get("SUDO_USER") or asking_user()
    elif args.run_as:
        raise ConfigError("--run-as is for a system's unit", fix="Add --system")
    return Unit(
        home=home.root,
        config=home.config,
        python=Path(sys.executable),
        user=user,
        mounts=tuple(path.absolute() for path in args.mount),
        grace_s=load(home).stop.grace_s,
    )


def _file(args: argparse.Namespace) -> Path:
    name = args.name.removesuffix(".service")
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"{args.name!r} is no name for a unit", fix="Take letters, digits, '-'")
    return Manager(args.system).folder / f"{name}.service"


def _check_owner(home: Home, user: str) -> None:
    """Under sudo it is easily root's own home that is meant by mistake."""
    try:
        wanted = pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise ConfigError(f"there is no user {user}", fix="Check --run-as") from error
    if home.ledger.stat().st_uid != wanted:
        raise ConfigError(
            f"{home.root} does not belong to {user}", fix="Name the right home with --home"
        )


def _check_ours(path: Path, home: Home) -> None:
    if path.exists() and _served(path) != home.root:
        raise ConfigError(
            f"{path} serves {_served(path) or 'something else than ftd'}, not {home.root}",
            fix="Choose another --name",
        )


def _served(path: Path) -> Path | None:
    try:
        return home_in(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        seal(path, text.encode())
        path.chmod(0o644)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot change {path} ({error.strerror})",
        fix="A system's unit needs sudo: sudo ftd --home HOME service ... --system --run-as USER",
    )


def _carry_out(manager: Manager, *commands: list[str]) -> int:
    """Let systemd do it, or say what to type where it cannot be asked."""
    for number, words in enumerate(commands):
        done = manager.run(*words)
        if done is None or done.returncode != 0:
            said = "systemd does not answer here" if done is None else done.stderr.strip()
            print(f"{said}. Type yourself:")
            for command in commands[number:]:
                print(f"  {shlex.join(manager.command(*command))}")
            return 1
    return 0
