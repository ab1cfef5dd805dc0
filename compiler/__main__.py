"""`python -m fluxc.compiler` is the command line without the installed script."""

from fluxc.compiler.cli import main

main()
