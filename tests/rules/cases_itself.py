"""netprobe itself, and how pods start: the alerts of netprobe-itself.yaml."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tests.rules.gauges import Say, Text, fires, some, told
from tests.rules.pods import SCRAPE_SECONDS, Pod, Says, scraped, short_lived
from tests.rules.promtool import STALE, Case, Firing, Series, Situation, series

MINUTE = 60
HALF = 1800
NAMESPACE = "airflow"
SELF = f"netprobe-self?var-namespace={NAMESPACE}"
TASK = f"netprobe-task?var-namespace={NAMESPACE}&var-dag_id=orders"
SINK = "remote_write"
RECORDED = ("netprobe-recording.yaml", "netprobe-itself.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """One alert, and what makes it fire."""

    alert: str
    say: Say
    text: Text
    """Of two pods out of three."""
    within: int
    """Seconds after which it fires: at the evaluation then, and at none before."""
    passes: int
    """Seconds from then until it is over, neither sooner nor later, when all pods are well again a moment later."""
    labels: dict[str, str] = field(default_factory=dict)
    rules: Sequence[str] = ("netprobe-itself.yaml",)
    """Those that are needed: the fewer, the sooner it is known."""
    forgotten: int | None = None
    """The same when all pods have gone, where that takes longer. What is recorded each minute is added up there, and
    versions of Prometheus differ by one minute."""
    well: Say | None = None
    """What pods say that are nearly as bad; those that are well where nothing else is given."""


def quiet(
    about: About, situation: Situation, name: str, series: Sequence[Series], until: int = HALF, *, alert: str = ""
) -> Case:
    """The alert, or another of the same rules, never fires."""
    return Case(
        alert=alert or about.alert,
        situation=situation,
        name=name,
        series=series,
        firing={until: []},
        never_from=0,
        interval_seconds=MINUTE,
        rules=about.rules,
    )


def standard(about: About) -> list[Case]:
    """What every alert on a share of the pods has in common: two of them at least, and more than a quarter.

    What can be asked of one scene is, as each is played from its beginning, with all rules. So what is not to fire has
    namespaces of its own.
    """
    alert, say = about.alert, about.say
    firing = [fires(alert, {"namespace": NAMESPACE, **about.labels})]
    end = about.within + 10 * MINUTE
    over = about.within + about.passes
    forgotten = about.within + (about.forgotten or about.passes)

    def pods(number: int, until: int = end, namespace: str = NAMESPACE, *, begins: int = 0) -> list[Pod]:
        ended = until != end
        return [
            scraped(f"pod-{begins}-{index}", begins, until, ended=ended, namespace=namespace) for index in range(number)
        ]

    def case(situation: Situation, found: list[Series], by_time: dict[int, list[Firing]], name: str = "") -> Case:
        return Case(
            alert=alert,
            situation=situation,
            name=name,
            series=found,
            firing=by_time,
            interval_seconds=MINUTE,
            rules=about.rules,
        )

    enough = some(pods(3, end + MINUTE), say, bad=2)
    too_few = [
        *some(pods(1, namespace="the only pod"), say, bad=1),
        *some(pods(8, namespace="a quarter of the pods"), say, bad=2),
        *some(pods(3, namespace="all pods, but not by enough"), about.well or say, bad=3 if about.well else 0),
    ]
    nobody = [series("netprobe_probe_success", {"namespace": NAMESPACE, "pod": "a", "target": "t"}, {0: 1, end: 1})]
    # Scraped once more, so that no window begins at the last word: whether that is within it differs between versions.
    last = about.within + 2 * SCRAPE_SECONDS
    gone = some(pods(3, last, "they have gone"), say, bad=2)
    mended = [
        *some(pods(3, last), say, bad=2),
        *some(pods(3, forgotten + MINUTE, begins=about.within + MINUTE), say, bad=0),
        *gone,
    ]
    alone = [fires(alert, {"namespace": "they have gone", **about.labels})]
    both = [*firing, *alone]
    to_the_end = {about.within: both, over - MINUTE: both}
    if about.forgotten:
        to_the_end |= {over: alone, forgotten - 2 * MINUTE: alone}
    told_of = [fires(alert, {"namespace": NAMESPACE, **about.labels}, about.text)]
    quiet_scene = [*too_few, *nobody]
    return [
        case(Situation.FIRES, enough, {about.within - MINUTE: [], about.within: told_of, end: firing}),
        quiet(about, Situation.BELOW, "", quiet_scene, end),
        quiet(about, Situation.MISSING, "nobody says anything of it", quiet_scene, end),
        case(Situation.RESOLVES, mended, {**to_the_end, forgotten: []}),
        case(Situation.MISSING, mended, {**to_the_end, forgotten: []}, "all pods have gone"),
    ]


def come_and_go(about: About) -> Case:
    """Nobody lives long enough to be scraped twice, and the alert fires all the same, until all is well."""
    begins = about.within + 2 * MINUTE
    until = begins + 10 * MINUTE
    over = until + 3 * MINUTE + (about.forgotten or about.passes)
    wrong, well = short_lived(0, until), short_lived(until, over)
    return Case(
        alert=about.alert,
        situation=Situation.SHORT_PODS,
        series=some([*wrong, *well], about.say, bad=len(wrong)),
        firing={until: [fires(about.alert, {"namespace": NAMESPACE, **about.labels})], over: []},
        without_gap=(begins, until),
        interval_seconds=MINUTE,
        rules=about.rules,
    )


# --- can it be believed? ---------------------------------------------------------------------------------------------


def configured(pod: Pod, *, bad: bool = False) -> list[Series]:
    return [told(pod, "netprobe_config_last_reload_successful", lambda _: float(not bad))]


def lagging(seconds: float) -> Say:
    def say(pod: Pod, *, bad: bool) -> list[Series]:
        return [*configured(pod), told(pod, "netprobe_event_loop_lag_seconds", lambda _: seconds if bad else 0.01)]

    return say


def throttled(share: float, before: float = 0.0) -> Say:
    """Kept off the CPU for this share of the time; `before` the first look for so many seconds."""

    def say(pod: Pod, *, bad: bool) -> list[Series]:
        def seconds(second: int) -> float:
            return before + share * (second - pod.heard[0]) if bad else 0.0

        return [*configured(pod), told(pod, "netprobe_cpu_throttled_seconds_total", seconds)]

    return say


def starved(pod: Pod, *, bad: bool) -> list[Series]:
    return [
        *pod.series(lambda _: Says(causes=["prober_starved"] if bad else [], targets={"ledger": None})),
        told(pod, "netprobe_event_loop_lag_seconds", lambda _: 2.5 if bad else 0.01),
    ]


def misconfigured(pod: Pod, *, bad: bool) -> list[Series]:
    cause = "probe_misconfigured"
    return pod.series(lambda _: Says(causes=[cause] if bad else [], targets={"ledger": cause if bad else None}))


def skipping(share: float) -> Say:
    """Of four rounds each scrape, this share given up."""

    def say(pod: Pod, *, bad: bool) -> list[Series]:
        def rounds(second: int) -> float:
            return 4 * (1 + (second - pod.heard[0]) // SCRAPE_SECONDS)

        given_up = share if bad else 0.0
        run = told(
            pod,
            "netprobe_probes_total",
            lambda second: rounds(second) * (1 - given_up),
            target="ledger",
            type="tcp",
            result="success",
        )
        skipped = told(pod, "netprobe_runs_skipped_total", lambda second: rounds(second) * given_up)
        return [*configured(pod), run, skipped]

    return say


# --- is there anything? ----------------------------------------------------------------------------------------------


def pushing(share: float) -> Say:
    """Of ten requests each time the pod is heard of, this share fails."""

    def say(pod: Pod, *, bad: bool) -> list[Series]:
        failed = share if bad else 0.0

        def requests(second: int) -> float:
            return 10 * (1 + (second - pod.heard[0]) // SCRAPE_SECONDS)

        found = [
            told(
                pod, "netprobe_push_requests_total", lambda s: requests(s) * (1 - failed), sink=SINK, result="success"
            ),
            told(pod, "netprobe_push_requests_total", lambda s: requests(s) * failed, sink=SINK, result="failure"),
        ]
        if bad:
            where = {"sink": SINK, "phase": "connect", "reason": "refused"}
            found.append(told(pod, "netprobe_push_failures_total", lambda s: requests(s) * failed, **where))
        return found

    return say


def dropping(share: float) -> Say:
    """Of a thousand samples each time the pod is heard of, this share is refused."""

    def say(pod: Pod, *, bad: bool) -> list[Series]:
        lost = share if bad else 0.0

        def samples(second: int) -> float:
            return 1000 * (1 + (second - pod.heard[0]) // SCRAPE_SECONDS)

        return [
            *pushing(0)(pod, bad=False),
            told(pod, "netprobe_push_samples_total", lambda s: samples(s) * (1 - lost), sink=SINK, result="taken"),
            told(pod, "netprobe_push_samples_total", lambda s: samples(s) * lost, sink=SINK, result="dropped"),
        ]

    return say


SHARES = [
    About(
        alert="NetprobeConfigUnusable",
        say=configured,
        text=Text(
            "66.67% of the netprobes in namespace airflow cannot use their configuration.",
            "2 of 3 pods go on as if there were none, with the targets that they find in their environment.",
            "netprobeconfigunusable",
            SELF,
        ),
        within=5 * MINUTE,
        passes=3 * MINUTE,
    ),
    About(
        alert="NetprobeLagging",
        say=lagging(0.51),
        well=lagging(0.5),
        text=Text(
            "66.67% of the netprobes in namespace airflow run late: latencies there are too high.",
            "2 of 3 pods were late by more than half a second, the worst by 510ms.",
            "netprobelagging",
            SELF,
        ),
        within=10 * MINUTE,
        passes=3 * MINUTE,
    ),
    About(
        alert="NetprobeThrottled",
        say=throttled(0.101, before=15),
        well=throttled(0.099),
        text=Text(
            "The CPU limit of 66.67% of the netprobes in namespace airflow is too low.",
            "2 of 3 pods were kept off the CPU by their limit for more than twelve seconds within two minutes. "
            "Latencies there are too high, and timeouts may be their own.",
            "netprobethrottled",
            SELF,
        ),
        within=10 * MINUTE,
        passes=MINUTE,
    ),
    About(
        alert="NetprobeStarved",
        rules=RECORDED,
        say=starved,
        text=Text(
            "66.67% of the netprobes in namespace airflow have too little CPU to tell a slow network "
            "from their own slowness.",
            "2 of 3 pods blame their timeouts on their own lack of CPU; the worst of all was late by 2.5s.",
            "prober_starved",
            SELF,
        ),
        within=3 * MINUTE,
        passes=8 * MINUTE,
    ),
    About(
        alert="NetprobeProbeMisconfigured",
        rules=RECORDED,
        say=misconfigured,
        text=Text(
            "netprobe cannot ask ledger in namespace airflow: this is about its configuration, not about the network.",
            "2 of 3 pods say so. Whether the target can be reached is not known.",
            "probe_misconfigured",
            "netprobe-target?var-namespace=airflow&var-target=ledger",
        ),
        within=3 * MINUTE,
        passes=8 * MINUTE,
        labels={"target": "ledger"},
    ),
    About(
        alert="NetprobeRunsSkipped",
        rules=RECORDED,
        say=skipping(0.16),
        well=skipping(0.1),
        text=Text(
            "netprobe gives up 10.67% of its runs in namespace airflow: results are older than they should be.",
            "56 runs were given up within a quarter of an hour in 2 of 3 pods, because the run before was still under "
            "way or too many were.",
            "netproberunsskipped",
            SELF,
        ),
        within=11 * MINUTE,
        passes=2 * MINUTE,
        forgotten=17 * MINUTE,
    ),
    About(
        alert="NetprobePushFailing",
        say=pushing(0.76),
        well=pushing(0.5),
        text=Text(
            "50.67% of the pushes to remote_write from namespace airflow fail.",
            "2 of 3 pods had pushes that failed within ten minutes, mostly with connect/refused. Pods that end "
            "before they succeed are not heard of.",
            "netprobepushfailing",
            SELF,
        ),
        within=6 * MINUTE,
        passes=2 * MINUTE,
        forgotten=12 * MINUTE,
        labels={"sink": SINK},
    ),
    About(
        alert="NetprobePushLosesSamples",
        say=dropping(0.0165),
        well=dropping(0.01),
        text=Text(
            "remote_write will never get 1.1% of what was pushed from namespace airflow.",
            "2 of 3 pods had samples refused within a quarter of an hour. Counts and error rates of that time are too "
            "low.",
            "netprobepushlosessamples",
            SELF,
        ),
        within=2 * MINUTE,
        passes=2 * MINUTE,
        forgotten=17 * MINUTE,
        labels={"sink": SINK},
    ),
]

# --- pods that are not heard of --------------------------------------------------------------------------------------


def up(pod: Pod, *, bad: bool) -> list[Series]:
    return [told(pod, "up", lambda _: float(not bad), job="netprobe", instance=pod.name)]


SCRAPES = About(
    alert="NetprobeScrapeFailing",
    say=up,
    text=Text(
        "Prometheus cannot scrape 66.67% of the netprobes in namespace airflow.",
        "2 of 3 pods that Prometheus has found have not answered it once within five minutes. What they see is "
        "not known, and no alert about it can fire.",
        "netprobescrapefailing",
        SELF,
    ),
    within=9 * MINUTE,
    passes=MINUTE,
)


def running(kind: str) -> Say:
    """What kube-state-metrics says of a pod, and what a pod says that is well."""

    def say(pod: Pod, *, bad: bool) -> list[Series]:
        labels = {"namespace": pod.namespace, "pod": pod.name, "uid": f"uid-{pod.name}"}
        points = dict.fromkeys(pod.heard, 1.0)
        ends = {} if pod.ends is None else {pod.ends: STALE}
        found = [
            series(f"kube_pod_{kind}_status_running", {**labels, "container": name}, {**points, **ends})
            for name in ("netprobe", "base")
        ]
        return found if bad else [*found, *configured(pod)]

    return say


SILENCE = About(
    alert="NetprobeNoData",
    say=running("init_container"),
    text=Text(
        "66.67% of the netprobes that run in namespace airflow are not heard of.",
        "2 of 3 pods whose netprobe has been running for five minutes are not scraped and push nothing. What they see "
        "is not known, and no alert about it can fire.",
        "netprobenodata",
        SELF,
    ),
    within=10 * MINUTE,
    passes=MINUTE,
)


def overlapping(until: int, lives: int, **where: str) -> list[Pod]:
    """Pods that live so long; one begins each 20 seconds."""
    return [
        Pod(name=f"short-{begins}", heard=range(begins, begins + lives, 5), ends=begins + lives, **where)
        for begins in range(0, until, 20)
    ]


LINGERING = [
    series(
        "up",
        {**pod.labels, "job": "netprobe", "instance": pod.name},
        {pod.heard[0]: 1, **{pod.heard[0] + late: 0 for late in (15, 30, 45, 60)}, pod.heard[0] + 75: STALE},
    )
    for pod in short_lived(0, HALF)
]
NEVER_OF_SHORT_PODS = [
    quiet(SCRAPES, Situation.SHORT_PODS, "none of them answers", some(overlapping(HALF, 60), up, bad=90)),
    quiet(
        SCRAPES,
        Situation.SHORT_PODS,
        "they answer, and stay in the discovery for a minute after they ended",
        LINGERING,
    ),
    quiet(
        SILENCE,
        Situation.SHORT_PODS,
        "they are seen by kube-state-metrics alone",
        some(overlapping(HALF, 60), SILENCE.say, bad=90),
    ),
]


def answering(pod: Pod, answers: Callable[[int], bool]) -> Series:
    """Whether a scrape of the pod succeeds, at each second at which there is one."""
    return told(pod, "up", lambda second: float(answers(second)), job="netprobe", instance=pod.name)


def each_four_minutes(late: int) -> Callable[[int], bool]:
    """So many seconds after them."""
    return lambda second: second % (4 * MINUTE) == late


def of_kubernetes(metric: str, pod: Pod, from_second: int, value: float, **labels: str) -> Series:
    """What kube-state-metrics says of a pod from then on, until Prometheus forgets the pod."""
    points = {second: value for second in pod.heard if second >= from_second}
    return series(metric, {"namespace": pod.namespace, "pod": pod.name, **labels}, points)


UNREACHABLE = "NetprobePodsUnreachable"
DARK = 10 * MINUTE
"""When the network goes down."""
TOLD_AT = DARK + 5 * MINUTE
"""After two minutes without an answer, and three minutes; and the evaluation before that."""
TOLD_BEFORE = TOLD_AT - MINUTE
LOST_TEXT = Text(
    "The pods in namespace airflow do not answer Prometheus any more: their network is down, or the way to them is.",
    "1 of 11 pods that Prometheus has found answer it, and nearly all did a few minutes ago. What they see is not "
    "known, and no other alert can tell. They run the DAG orders. 1 of 2 other targets in the namespace answer "
    "Prometheus.",
    "netprobepodsunreachable",
    SELF,
)


def dark(second: int) -> bool:
    return second < DARK


def lost(namespace: str, number: int, until: int) -> list[Series]:
    """Pods that answer until the network goes down, and are found still."""
    pods = [scraped(f"pod-{i}", 0, until, namespace=namespace) for i in range(number)]
    return [answering(pod, dark) for pod in pods]


def unreachable() -> list[Case]:
    """Nearly all pods that answered do not, and are there still."""
    mended, gone = 50 * MINUTE, 52 * MINUTE
    end = 60 * MINUTE
    firing = [fires(UNREACHABLE, {"namespace": NAMESPACE})]

    def case(situation: Situation, found: list[Series], by_time: dict[int, list[Firing]], name: str = "") -> Case:
        return Case(
            alert=UNREACHABLE,
            situation=situation,
            name=name,
            series=found,
            firing=by_time,
            interval_seconds=MINUTE,
            rules=SCRAPES.rules,
        )

    def never(situation: Situation, name: str, found: list[Series]) -> Case:
        return quiet(SCRAPES, situation, name, found, HALF, alert=UNREACHABLE)

    def pods(number: int, begins: int = 0, until: int = HALF, *, ended: bool = False) -> list[Pod]:
        return [scraped(f"pod-{begins}-{i}", begins, until, ended=ended) for i in range(number)]

    nearly_all = [
        *lost(NAMESPACE, 10, HALF),
        answering(scraped("well", 0, HALF), lambda _: True),
        told(scraped("scheduler", 0, HALF), "up", lambda _: 1, job="airflow", instance="scheduler"),
        told(scraped("statsd", 0, HALF), "up", lambda _: 0, job="airflow", instance="statsd"),
    ]
    # It lasts for longer than anybody remembers an answer, and pods that start meanwhile never give one.
    long = [answering(pod, lambda s: not DARK <= s < mended) for pod in pods(4, 0, end)]
    long += [answering(pod, lambda s: s >= mended) for pod in pods(4, 30 * MINUTE, end)]
    leaves = [
        told(
            scraped(f"pod-{i}", 0, gone, ended=True, namespace="their pods are deleted"),
            "up",
            lambda second: float(dark(second)),
            job="netprobe",
            instance=f"pod-{i}",
        )
        for i in range(4)
    ]
    short_of_it = [
        *lost("nine tenths of the pods", 9, HALF),
        answering(scraped("well", 0, HALF, namespace="nine tenths of the pods"), lambda _: True),
        *lost("two pods", 2, HALF),
        *(
            answering(
                scraped(f"pod-{i}", 0, HALF, namespace="four and a half minutes"), lambda s: not DARK <= s < DARK + 270
            )
            for i in range(4)
        ),
    ]
    others = [answering(scraped(f"well-{i}", 0, HALF), lambda _: True) for i in range(3)]
    told_to_end = [
        one
        for pod in pods(4)
        for one in (answering(pod, dark), of_kubernetes("kube_pod_deletion_timestamp", pod, DARK, 1))
    ]
    ended_first = [
        one
        for kind, pod in zip(("container", "init_container") * 4, pods(8), strict=True)
        for one in (
            answering(pod, dark),
            of_kubernetes(f"kube_pod_{kind}_status_running", pod, DARK, 0, container="netprobe"),
        )
    ]
    rollout = [
        *(answering(pod, lambda s: s < DARK) for pod in pods(4, 0, DARK + 90, ended=True)),
        *(answering(pod, lambda _: True) for pod in pods(4, DARK + 30)),
    ]
    return [
        case(
            Situation.FIRES,
            nearly_all,
            {TOLD_BEFORE: [], TOLD_AT: [fires(UNREACHABLE, {"namespace": NAMESPACE}, LOST_TEXT)]},
        ),
        replace(
            case(
                Situation.RESOLVES,
                [*long, *leaves],
                {mended: [*firing, fires(UNREACHABLE, {"namespace": "their pods are deleted"})], end: []},
                "after three quarters of an hour",
            ),
            without_gap=(TOLD_AT, mended),
        ),
        never(Situation.BELOW, "", short_of_it),
        never(Situation.BELOW, "they are told to end, and the task takes its time", [*others, *told_to_end]),
        never(Situation.BELOW, "netprobe has ended before its pod", [*others, *ended_first]),
        never(Situation.BELOW, "a rollout", rollout),
        never(Situation.MISSING, "none has ever answered", [answering(pod, lambda _: False) for pod in pods(5)]),
        never(
            Situation.MISSING,
            "they have gone from the discovery",
            [answering(pod, lambda _: True) for pod in pods(5, 0, DARK, ended=True)],
        ),
        never(Situation.SHORT_PODS, "they answer, and stay in the discovery for a minute after they ended", LINGERING),
    ]


UNHEARD = [
    *standard(SCRAPES),
    *unreachable(),
    Case(
        alert="NetprobeScrapeFailing",
        situation=Situation.BELOW,
        name="the page about all of them says it louder",
        series=[*lost(NAMESPACE, 4, HALF), *lost("two pods", 2, HALF)],
        firing={HALF: [fires("NetprobeScrapeFailing", {"namespace": "two pods"})]},
        interval_seconds=MINUTE,
        rules=SCRAPES.rules,
    ),
    quiet(
        SCRAPES,
        Situation.BELOW,
        "each answers once in four minutes",
        [answering(scraped(f"pod-{late}", 0, HALF), each_four_minutes(late)) for late in range(0, 240, 30)],
    ),
    quiet(
        SCRAPES,
        Situation.BELOW,
        "their image cannot be pulled",
        [
            *(answering(scraped(f"well-{i}", 0, HALF), lambda _: True) for i in range(3)),
            *(answering(scraped(f"pod-{i}", 0, HALF), lambda _: False) for i in range(3)),
            *(
                of_kubernetes("kube_pod_status_phase", scraped(f"pod-{i}", 0, HALF), 0, 1, phase="Pending")
                for i in range(3)
            ),
        ],
    ),
    Case(
        alert="NetprobeScrapeFailing",
        situation=Situation.FIRES,
        name="of those that run, if most wait for their image",
        series=[
            *(answering(scraped(f"pod-{i}", 0, HALF), lambda _: True) for i in range(2)),
            *(answering(scraped(f"pod-{i}", 0, HALF), lambda _: False) for i in range(2, 20)),
            *(
                of_kubernetes("kube_pod_status_phase", scraped(f"pod-{i}", 0, HALF), 0, 1, phase="Pending")
                for i in range(6, 20)
            ),
        ],
        firing={HALF: [fires("NetprobeScrapeFailing", {"namespace": NAMESPACE})]},
        interval_seconds=MINUTE,
        rules=SCRAPES.rules,
    ),
    *standard(SILENCE),
    *NEVER_OF_SHORT_PODS,
    Case(
        alert="NetprobeNoData",
        situation=Situation.FIRES,
        name="beside the task, before Kubernetes 1.29",
        series=some([scraped(f"pod-{i}", 0, HALF) for i in range(3)], running("container"), bad=3),
        firing={HALF: [fires("NetprobeNoData", {"namespace": NAMESPACE})]},
        interval_seconds=MINUTE,
        rules=SILENCE.rules,
    ),
    quiet(
        SILENCE,
        Situation.BELOW,
        "pods that are found and do not answer are another alert",
        [
            one
            for pod in (scraped(f"pod-{i}", 0, HALF) for i in range(3))
            for one in (*SILENCE.say(pod, bad=True), *up(pod, bad=True))
        ],
    ),
    quiet(
        SILENCE,
        Situation.BELOW,
        "pods that push once in ten minutes",
        [
            one
            for index in range(12)
            for one in (
                *SILENCE.say(scraped(f"pod-{index}", 0, HALF), bad=True),
                *configured(Pod(name=f"pod-{index}", heard=range(50 * index, HALF, 600))),
            )
        ],
    ),
    quiet(
        SILENCE,
        Situation.MISSING,
        "kube-state-metrics is not there",
        some([scraped(f"pod-{i}", 0, 10 * MINUTE, ended=True) for i in range(3)], configured, bad=0),
    ),
    quiet(
        SILENCE,
        Situation.MISSING,
        "the pods have finished, and their containers are listed for long",
        [
            series(
                "kube_pod_init_container_status_running",
                {"namespace": NAMESPACE, "pod": f"pod-{i}", "uid": f"uid-{i}", "container": "netprobe"},
                {second: float(second < 4 * MINUTE) for second in range(0, HALF, 30)},
            )
            for i in range(3)
        ],
    ),
    Case(
        alert="NetprobePushFailing",
        situation=Situation.FIRES,
        name="told afterwards, by pods that are not scraped",
        # Nothing is heard of them for twenty minutes, until they can push again what they have counted meanwhile.
        series=[
            one
            for index in range(3)
            for pod in [Pod(name=f"pod-{index}", heard=[MINUTE, *range(20 * MINUTE, 40 * MINUTE, MINUTE)])]
            for one in [
                told(
                    pod,
                    "netprobe_push_requests_total",
                    lambda second: second // MINUTE if second < 2 * MINUTE else second // MINUTE - 18,
                    sink=SINK,
                    result="success",
                ),
                told(
                    pod,
                    "netprobe_push_requests_total",
                    lambda second: 0 if second < 2 * MINUTE else 40,
                    sink=SINK,
                    result="failure",
                ),
            ]
        ],
        firing={
            20 * MINUTE: [],
            28 * MINUTE: [fires("NetprobePushFailing", {"namespace": NAMESPACE, "sink": SINK})],
            40 * MINUTE: [],
        },
        interval_seconds=MINUTE,
        rules=SILENCE.rules,
    ),
]


# --- how pods start --------------------------------------------------------------------------------------------------


def gated(seconds: float, *, in_vain: bool = False) -> Say:
    """Held back for so long, the bad ones."""

    def say(pod: Pod, *, bad: bool) -> list[Series]:
        return [
            told(pod, "netprobe_startup_gate_seconds", lambda _: seconds if bad else 0.0),
            told(pod, "netprobe_startup_gate_timed_out", lambda _: float(bad and in_vain)),
        ]

    return say


def not_ready(pod: Pod, *, bad: bool) -> list[Series]:
    """It says so while it is young, as every pod forgets it; and again, where netprobe begins anew in the pod."""

    def says(second: int) -> Says:
        return Says(
            causes=["network_not_ready"] if bad and (second - pod.heard[0]) % (50 * MINUTE) < 5 * MINUTE else []
        )

    return [*pod.series(says), *gated(0)(pod, bad=False)]


STARTS = [
    About(
        alert="NetprobeNetworkNotReady",
        say=not_ready,
        text=Text(
            "50% of the pods that start in namespace airflow have no network in their first seconds.",
            "In 3 of 6 pods that started within a quarter of an hour all targets failed together at first, and none "
            "since. Tasks that connect at once fail there. The DAG orders is affected.",
            "network_not_ready",
            TASK,
        ),
        within=2 * MINUTE,
        passes=15 * MINUTE,
    ),
    About(
        alert="NetprobeStartGateSlow",
        say=gated(5.1),
        well=gated(5.0),
        text=Text(
            "50% of the tasks that start in namespace airflow wait more than five seconds for what they need.",
            "3 of 6 pods that started within a quarter of an hour were held back that long until the targets that are "
            "gates answered, at most for 5.1s. The DAG orders is affected.",
            "netprobestartgateslow",
            TASK,
        ),
        within=2 * MINUTE,
        passes=15 * MINUTE,
    ),
    About(
        alert="NetprobeStartGateTimedOut",
        say=gated(10.0, in_vain=True),
        well=gated(10.0),
        text=Text(
            "50% of the tasks that start in namespace airflow do so though what they need has not answered.",
            "3 of 6 pods that started within a quarter of an hour were held back for as long as the gate may, in vain. "
            "The DAG orders is affected.",
            "netprobestartgatetimedout",
            TASK,
        ),
        within=2 * MINUTE,
        passes=15 * MINUTE,
    ),
]


def starting(about: About) -> list[Case]:
    """Three of the pods that started, and more than a quarter of these: those that started long ago do not count."""
    alert, say = about.alert, about.say
    begins = 20 * MINUTE
    end = begins + 20 * MINUTE
    at = begins + about.within
    firing = [fires(alert, {"namespace": NAMESPACE})]

    def old(namespace: str = NAMESPACE) -> list[Series]:
        pods = [scraped(f"old-{index}", 0, end, namespace=namespace) for index in range(20)]
        return some(pods, gated(0), bad=0)

    def fresh(number: int, namespace: str = NAMESPACE) -> list[Pod]:
        return [scraped(f"pod-{index}", begins, end, namespace=namespace) for index in range(number)]

    def case(situation: Situation, found: list[Series], by_time: dict[int, list[Firing]], name: str = "") -> Case:
        return Case(
            alert=alert,
            situation=situation,
            name=name,
            series=found,
            firing=by_time,
            interval_seconds=MINUTE,
            rules=about.rules,
        )

    # Those that are held back live on, and are not told of again: a start is over.
    enough = [*old(), *some(fresh(6), say, bad=3)]
    too_few = [
        *some(fresh(2, "all that started"), say, bad=2),
        *some(fresh(12, "a quarter of those that started"), say, bad=3),
        *some(fresh(6, "all, but not by enough"), about.well or say, bad=6 if about.well else 0),
        *old("nobody starts"),
        *(one for pod in fresh(3, "nobody says anything of it") for one in pod.series(lambda _: Says())),
    ]
    wrong, well = short_lived(0, 20 * MINUTE), short_lived(20 * MINUTE, 38 * MINUTE)
    coming_and_going = Case(
        alert=alert,
        situation=Situation.SHORT_PODS,
        series=some([*wrong, *well], say, bad=len(wrong)),
        firing={20 * MINUTE: firing, 38 * MINUTE: []},
        without_gap=(about.within + 2 * MINUTE, 20 * MINUTE),
        interval_seconds=MINUTE,
        rules=about.rules,
    )
    later = [scraped(f"later-{index}", begins + 16 * MINUTE, end) for index in range(4)]
    text = [fires(alert, {"namespace": NAMESPACE}, about.text)]
    return [
        case(Situation.FIRES, enough, {at - MINUTE: [], at: text, begins + 14 * MINUTE: firing}),
        case(Situation.RESOLVES, enough, {begins + 14 * MINUTE: firing, begins + about.passes: []}),
        case(
            Situation.RESOLVES,
            [*some(fresh(3), say, bad=3), *some(later, say, bad=0)],
            {begins + 14 * MINUTE: firing, begins + 18 * MINUTE: []},
            "those that start later are well",
        ),
        quiet(about, Situation.BELOW, "", too_few, end),
        quiet(about, Situation.MISSING, "", too_few, end),
        coming_and_going,
    ]


def heard_of_again(about: About) -> Case:
    """What is heard of after a gap has not started: not those that are bad, and not those that are well."""
    alert = about.alert
    back = 50 * MINUTE

    def returning(number: int, namespace: str) -> list[Pod]:
        heard = [*range(0, 5 * MINUTE, SCRAPE_SECONDS), *range(back, back + 20 * MINUTE, SCRAPE_SECONDS)]
        return [Pod(name=f"old-{index}", heard=heard, namespace=namespace) for index in range(number)]

    def new(namespace: str) -> list[Pod]:
        return [scraped(f"new-{index}", back, back + 20 * MINUTE, namespace=namespace) for index in range(3)]

    return Case(
        alert=alert,
        situation=Situation.FIRES,
        name="not of those that are heard of again",
        series=[
            *some(returning(3, "they come back"), about.say, bad=3),
            *some(returning(20, "new ones as well"), gated(0), bad=0),
            *some(new("new ones as well"), about.say, bad=3),
            *some(returning(3, "new ones that are well"), about.say, bad=3),
            *some(new("new ones that are well"), about.say, bad=0),
        ],
        firing={
            4 * MINUTE: [fires(alert, {"namespace": name}) for name in ("they come back", "new ones that are well")],
            **{back + later * MINUTE: [fires(alert, {"namespace": "new ones as well"})] for later in (4, 9, 14)},
        },
        interval_seconds=MINUTE,
        rules=about.rules,
    )


OF_SEVERAL_DAGS = Case(
    alert="NetprobeStartGateTimedOut",
    situation=Situation.FIRES,
    name="of several DAGs",
    series=[
        *(
            one
            for place, dag_id in enumerate(("a", "b", "c", "d", "e e", "f", "g"))
            for index in range(8 - place)
            for one in gated(10.0, in_vain=True)(scraped(f"{place}-{index}", 0, HALF, dag_id=dag_id), bad=True)
        ),
        series(
            "netprobe:target_failing_pods:count2m", {"namespace": NAMESPACE, "target": "ledger"}, {150: 30, 180: 30}
        ),
        series("netprobe:target_failing_pods:count2m", {"namespace": NAMESPACE, "target": "events"}, {150: 5, 180: 5}),
        series("netprobe:target_failing_pods:count2m", {"namespace": NAMESPACE, "target": "well"}, {150: 0, 180: 0}),
    ],
    firing={
        3 * MINUTE: [
            fires(
                "NetprobeStartGateTimedOut",
                {"namespace": NAMESPACE},
                Text(
                    "100% of the tasks that start in namespace airflow do so though what they need has not answered.",
                    "35 of 35 pods that started within a quarter of an hour were held back for as long as the gate "
                    "may, in vain. The DAGs a, b, c, d, e e, f and g are affected. The targets ledger and events "
                    "fail now.",
                    "netprobestartgatetimedout",
                    f"netprobe-task?var-namespace={NAMESPACE}&var-dag_id=a",
                ),
            )
        ]
    },
    interval_seconds=MINUTE,
    rules=("netprobe-itself.yaml",),
)


CASES = [
    *(case for about in SHARES for case in (*standard(about), come_and_go(about))),
    *UNHEARD,
    *(case for about in STARTS for case in (*starting(about), heard_of_again(about))),
    OF_SEVERAL_DAGS,
]
