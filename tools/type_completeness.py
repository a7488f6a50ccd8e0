"""Prints how many public names have a complete type, and lists the others. Fails if too few are complete.

It reads the output of `pyright --verifytypes ragcrawl_dynamo --ignoreexternal --outputjson`. `make
typecheck-public` runs both.
"""

import json
import sys

# The classes of the adapters derive from classes of their crawlers. These are not installed where it is
# measured, so that pyright does not know them: 1.5 % of all public names.
FLOOR = 0.98


def main() -> None:
    """Reads pyright's report from the standard input."""
    report = json.load(sys.stdin)["typeCompleteness"]
    for symbol in report["symbols"]:
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            errors = [
                entry["message"].partition("\n")[0]
                for entry in symbol["diagnostics"]
                if entry["severity"] == "error"
            ]
            print(f"{symbol['name']}: {'; '.join(errors) or 'a type in it is not complete'}")
    score = report["completenessScore"]
    total = sum(report["exportedSymbolCounts"].values())
    print(f"{score:.1%} of {total:,} public names have a complete type, at least {FLOOR:.0%} must")
    sys.exit(score < FLOOR)


if __name__ == "__main__":
    main()
