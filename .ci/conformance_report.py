"""Judges a report of Autobahn's suite and prints it by group: see .ci/conformance.

    conformance_report.py lifted|production REPORT
"""
import json
import sys

# How many cases each run must have: a suite that ran none has not passed.
CASES = {"lifted": 301, "production": 247}

GROUPS = {
    1: "framing", 2: "pings and pongs", 3: "reserved bits", 4: "opcodes", 5: "fragmentation",
    6: "UTF-8", 7: "closing", 9: "limits and speed", 10: "automatic fragmentation",
}

# Cases that break a limit of a message as the gateway has it in production: they must be refused.
OVER_THE_LIMIT = {
    "1009": ["1.1.6", "1.1.7", "1.1.8", "1.2.6", "1.2.7", "1.2.8", "10.1.1"],
    # 20 characters, each byte of them in a fragment of its own.
    "1008": ["6.2.3"],
}


def main(run, path):
    with open(path) as report:
        cases = json.load(report)["tickfan"]
    refused_with = {}
    if run == "production":
        for code, names in OVER_THE_LIMIT.items():
            refused_with.update((name, int(code)) for name in names)
    columns = ["OK", "INFORMATIONAL", "NON-STRICT", "REFUSED", "FAILED"]
    rows = dict((group, dict.fromkeys(columns, 0)) for group in GROUPS)
    faults = []
    for name, case in cases.items():
        behavior, closing = case["behavior"], case["behaviorClose"]
        if name in refused_with:
            is_right = case["remoteCloseCode"] == refused_with[name]
            outcome = "REFUSED" if is_right else "FAILED"
        elif closing not in ("OK", "INFORMATIONAL"):
            outcome = "FAILED"
        else:
            outcome = behavior if behavior in columns else "FAILED"
        rows[int(name.split(".")[0])][outcome] += 1
        if outcome in ("FAILED", "NON-STRICT"):
            faults.append("%s: %s, close %s (%s)" % (
                name, behavior, closing, case["remoteCloseCode"]))
    print("| group | cases | OK | informational | non-strict | refused by a limit | failed |")
    print("|---|---|---|---|---|---|---|")
    total = dict.fromkeys(columns, 0)
    for group, row in sorted(rows.items()):
        if any(row.values()):
            print_row("%d %s" % (group, GROUPS[group]), row, columns)
        for column in columns:
            total[column] += row[column]
    print_row("all", total, columns)
    if len(cases) != CASES[run]:
        faults.append("expected %d cases, got %d" % (CASES[run], len(cases)))
    for fault in sorted(faults):
        print(fault)
    return 1 if faults else 0


def print_row(name, row, columns):
    numbers = [sum(row.values())] + [row[column] for column in columns]
    print("| %s | %s |" % (name, " | ".join(str(number) for number in numbers)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
