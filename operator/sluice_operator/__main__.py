"""`python -m sluice_operator` is `sluice-operator`."""

from sluice_operator.main import main

main(prog_name="sluice-operator")
