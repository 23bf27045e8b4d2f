"""Say at once, and clearly, which packages of the extra `deploy` a lesson lacks."""

from importlib.util import find_spec


def need(*modules: str) -> None:
    """Raise ModuleNotFoundError, with the command that helps, where one cannot be imported.

    modules: top-level names as in `import`, for example "onnxruntime".
    """
    if missing := [name for name in modules if find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"This lesson also needs {', '.join(missing)}. In a terminal in Quartet's folder run "
            "`make deploy`, or `pip install -c constraints.txt -e '.[deploy]'` in an environment "
            "of your own; then restart the kernel."
        )
