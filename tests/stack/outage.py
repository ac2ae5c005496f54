"""Play an outage of names at the real pace, or faster, and print how long it took until somebody knew.

    python -m tests.stack.outage [--pace FACTOR]

Thirty agents in a world of network namespaces, Prometheus, the shipped rules, Alertmanager and a webhook.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from tests.lab.fleet.fleet import Fleet, fleet
from tests.lab.fleet.monitoring import PAGE
from tests.lab.fleet.outage import SYMPTOM, Outage, Phase, Story
from tests.lab.pace import Pace
from tests.stack.panels import without_answer


def main(arguments: Sequence[str]) -> None:
    """Play, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.stack.outage", description=__doc__)
    parser.add_argument("--pace", type=float, default=1.0, metavar="FACTOR", help="so many times as fast")
    pace = Pace(parser.parse_args(arguments).pace)

    def look(running: Fleet, phase: Phase) -> list[str]:
        return without_answer(running, pace, phase)

    with fleet(pace) as running:
        story = Outage(running, pace, look, tell=lambda line: print(line, flush=True)).play()
    _print(story)


def _print(story: Story[list[str]]) -> None:
    pages, resolved = story.sent(PAGE, "firing"), story.sent(PAGE, "resolved")
    silenced = [alert for alert in story.silenced if alert["status"]["state"] == "suppressed"]
    symptoms = [alert for alert in silenced if alert["labels"]["alertname"] == SYMPTOM]
    print(f"\nfrom the fault to the page:      {pages[0].at:6.1f} s")
    print(f"from the mend to its resolution: {resolved[0].at - story.mended_at:6.1f} s")
    print(f"notifications: {len(pages)} firing, {len(resolved)} resolved; of other receivers than {PAGE}:")
    for one in story.arrived:
        if "alerts" in one.notification.body and one.notification.path != PAGE:
            alerts = one.notification.body["alerts"]
            print(f"  {one.at:.1f} s {one.notification.path} {one.notification.body['status']}: {len(alerts)} alerts")
            for alert in alerts:
                print(f"    {alert['annotations']['summary']}\n      {alert['labels']}")
    fired = Counter(labels["alertname"] for labels in story.fired)
    print(f"fired: {', '.join(f'{count} {name}' for name, count in fired.items())}")
    print(f"silenced: {len(silenced)} alerts, {len(symptoms)} of them {SYMPTOM}")
    for phase, queries in story.looked.items():
        print(f"queries of dashboards without an answer, {phase}: {len(queries)}")
        for told in queries:
            print(f"  {told}")
    shares = ", ".join(f"{who} {share:.0%}" for who, share in story.cpu_share.items())
    print(f"CPU: {sum(story.cpu_share.values()):.0%} of one core ({shares})")
    print("\n" + "\n\n".join(story.messages))


if __name__ == "__main__":
    main(sys.argv[1:])
