"""Finds, in a module's syntax tree, the ways by which what a file or a user says is run, unpacked or imported."""

from __future__ import annotations

import ast

NEVER_IMPORTED = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
NEVER_NAMED = {"eval", "exec", "__import__"}                    # also not to be called later by another name
# In what users run (tests unpack data and run modules), besides: calls by their last names, those of a module by both.
NEVER_CALLED = {"compile": "runs text", "extract": "writes by an archive's names", "extractall": "writes by an archive's names",
                "unpack_archive": "writes by an archive's names", "exec_module": "runs a file", "run_path": "runs a file",
                "run_module": "runs a file", "load_module": "runs a file", "read_pickle": "runs a pickle"}
HARMLESS = {("re", "compile"), ("torch", "compile")}
NEVER_OF = {("os", "system"): "runs a shell", ("os", "popen"): "runs a shell", ("subprocess", "getoutput"): "runs a shell",
            ("subprocess", "getstatusoutput"): "runs a shell", ("torch", "load"): "runs a pickle",
            ("builtins", "eval"): "runs text", ("builtins", "exec"): "runs text"}
# What may be left out where these are called: (module, function) -> keyword that must be there.
NEEDED = {("Image", "open"): "formats", ("np", "load"): "allow_pickle", ("numpy", "load"): "allow_pickle"}
MODULES = {name for name, _ in (*NEVER_OF, *NEEDED)} | {"PIL"}


def dangers(source: ast.AST, strict: bool = False, by_name: bool = False) -> list[str]:
    """One line each; `strict` for what users run, `by_name` for modules that may import by a name that is no constant."""
    found = []
    for node in ast.walk(source):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [module, *(a.name for a in node.names)]
            found += [n for n in names if n.split(".")[0] in NEVER_IMPORTED]
            if strict and isinstance(node, ast.ImportFrom) and not node.level:
                short = module.rpartition(".")[2]
                found += [f"from {module} import {a.name}: use it by its module's name, where it is looked at" for a in node.names
                          if (short, a.name) in NEVER_OF or (short, a.name) in NEEDED
                          or (not by_name and (module, a.name) == ("importlib", "import_module"))]
            if strict:                                          # by another name it would not be recognised
                found += [f"{a.name} as {a.asname}" for a in node.names
                          if a.asname and a.name.rpartition(".")[2] in MODULES and (a.name, a.asname) != ("numpy", "np")]
        elif isinstance(node, ast.Name) and node.id in NEVER_NAMED:
            found.append(node.id)
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
            found += [] if isinstance(node.value, ast.Constant) and node.value.value is False else [node.arg]
        elif strict and isinstance(node, ast.Call):
            found += _call(node, by_name)
    return found


def _call(node: ast.Call, by_name: bool) -> list[str]:
    last = getattr(node.func, "attr", getattr(node.func, "id", ""))
    owner = getattr(node.func, "value", None)
    call = (getattr(owner, "attr", getattr(owner, "id", "")), last)
    found = [f"{'.'.join(call).strip('.')} {why}" for why in (NEVER_OF.get(call), NEVER_CALLED.get(last)) if why and call not in HARMLESS]
    if call[0] == "os" and last.startswith(("exec", "spawn", "posix_spawn")):
        found.append(f"os.{last} runs a program")
    if call in NEEDED and NEEDED[call] not in {keyword.arg for keyword in node.keywords}:
        found.append(f"{'.'.join(call)} without {NEEDED[call]}=")
    if last == "import_module" and not by_name and not (node.args and isinstance(node.args[0], ast.Constant)):
        found.append("import_module by a name that is no constant")
    return found
