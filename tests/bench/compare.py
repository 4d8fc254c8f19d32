"""Compare amqp_lite with RabbitMQ: one run, one machine, the same load for both.

    python3 tests/bench/compare.py                      everything, about 10 minutes
    python3 tests/bench/compare.py --quick              one short repetition, about 2 minutes
    python3 tests/bench/compare.py --protocols 0-9-1    half of that
    python3 tests/bench/compare.py --only amqp_lite --modes transient --sizes 64
    python3 tests/bench/compare.py --profile-broker --modes durable --sizes 256

A row is a protocol, a mode and a body size. AMQP 1.0 is RabbitMQ's plugin rabbitmq_amqp1_0.

  transient   publish -> amq.topic -> exclusive queue -> consumer with automatic ack; no confirms
  durable     persistent, with publisher confirms and a window of unconfirmed messages -> amq.topic
              -> durable queue -> consumer that acknowledges each message. One ack per message and
              no prefetch limit is what RabbitMQ's PerfTest does by default.

In 1.0 automatic ack and no confirms are transfers that are settled; confirms and acknowledgements
are dispositions that settle as accepted; no prefetch limit is more link credit than ever waits.

Publisher and consumer are two processes with a connection each (load.py, load10.py). Both brokers
run all the time and take turns, row by row, repetition by repetition; the one that waits is idle.
Figures are medians over the repetitions.

  messages/s  messages / (last delivery, or last confirm if that is later - first publish)
  latency     from the publisher's send to the consumer's receive, in a run of its own: --rate
              messages/s, each sent alone, the first tenth left out
  confirm     the same from send to confirm
  peak RSS    VmHWM of the broker's process tree within the row, in MB of 1,000,000 octets
  CPU         user + system time of the broker per message of the throughput run
  start-up    process start to connection.open-ok, with empty data folders

Every run checks that each message arrived once, in order, was confirmed once, and that nothing is
left in the queue; bodies are compared at least once per read of the consumer. A run that fails is
reported and the rest goes on; the exit code is then 1. The comparison with the aims at the end
does not change it.

The rows do not show what a confirm promises: RabbitMQ's comes when the message is in a file or
acknowledged by the consumer, whichever is first.
"""
import argparse
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time

import brokers
import load
import load10

LOADS = {"0-9-1": load.__file__, "1.0": load10.__file__}
MODES = ("transient", "durable")
SIZES = (64, 256, 1024)
# 2 to 5 s a run with RabbitMQ on two cores
MESSAGES = {"0-9-1": {"transient": 150000, "durable": 60000},
            "1.0": {"transient": 50000, "durable": 30000}}
QUICK = 5                # --quick has so many times fewer messages
LATENCY_S = 3            # of the latency run; 1 with --quick
REPEAT = 3
RUN_S = 180              # a run that takes longer has failed

# Aims for the ratio amqp_lite / RabbitMQ.
AIM_THROUGHPUT, AIM_MEMORY, AIM_STARTUP = 0.5, 0.1, 0.1


class RunError(Exception):
    """A run that did not end well; the text says which side found what."""


def run_load(job, started=None):
    """Run consumer and publisher with one job; return (consumer's result, publisher's result).

    started   called when both are connected, right before the first publish
    """
    processes = []
    try:
        for role in ("consume", "publish"):     # the queue has to be there first
            # A session of its own: Ctrl-C is for this process, which then kills the two.
            process = subprocess.Popen(
                [sys.executable, LOADS[job["protocol"]], role, json.dumps(job)], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
            processes.append(process)
            line = process.stdout.readline()
            if line != "ready\n":
                raise RunError(json.loads(line)["error"] if line else role + " has ended")
        if started:
            started()
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        return _wait_for_both(processes)
    except BaseException:
        load.remove_queue(job)      # its messages would burden the rows that follow
        raise
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _wait_for_both(processes):
    """Return their results; RunError as soon as one fails, the other may never end then."""
    deadline = time.monotonic() + RUN_S
    results = [None] * len(processes)
    while None in results:
        for i, process in enumerate(processes):
            if results[i] is None and process.poll() is not None:
                line = process.stdout.readline()
                results[i] = json.loads(line) if line else {"error": "a load ended early"}
                if "error" in results[i]:
                    raise RunError(results[i]["error"])
        if time.monotonic() > deadline:
            raise RunError("not finished after %d s" % RUN_S)
        time.sleep(0.02)
    return results


def measure(broker, protocol, mode, size, options):
    """One repetition of one row: a throughput run and a latency run. Returns a flat dict."""
    durable = mode == "durable"
    job = make_job(broker, protocol, mode, size, options)
    cpu_s = []
    broker.reset_peak()
    consumer, publisher = run_load(job, lambda: cpu_s.append(broker.cpu_s()))
    cpu_s.append(broker.cpu_s())
    _verify(job, consumer, publisher)
    last_ns = max(consumer["last_ns"], publisher["last_ns"] if durable else 0)
    seconds = (last_ns - publisher["first_ns"]) / 1e9
    result = {
        "messages": job["count"],
        "messages_per_s": job["count"] / seconds,
        "cpu_us": (cpu_s[1] - cpu_s[0]) * 1e6 / job["count"] if broker.pid else None,
        "load_cpu_us": (consumer["cpu_s"] + publisher["cpu_s"]) * 1e6 / job["count"],
        "times_blocked": publisher["times_blocked"],
        "sampled": consumer["sampled"],
        "walked": consumer["walked"],
    }
    job = make_job(broker, protocol, mode, size, options)
    job.update(rate=options.rate, count=options.rate * (1 if options.quick else LATENCY_S))
    consumer, publisher = run_load(job)
    _verify(job, consumer, publisher)
    for name, values in (("latency", consumer["latency_ms"]),
                         ("confirm", publisher["confirm_ms"])):
        for percentile in ("p50", "p99"):
            result["%s_%s_ms" % (name, percentile)] = values and values[percentile]
    result["peak_rss_mb"] = broker.pid and broker.peak_kb() * 1024 / 1e6
    return result


def _verify(job, consumer, publisher):
    if consumer["received"] != job["count"]:
        raise RunError("%d of %d messages received" % (consumer["received"], job["count"]))
    if job["durable"] and publisher["confirmed"] != job["count"]:
        raise RunError("%d of %d messages confirmed" % (publisher["confirmed"], job["count"]))
    if not consumer["sampled"]:
        raise RunError("no body compared")


_queue_numbers = itertools.count(1)


def make_job(broker, protocol, mode, size, options):
    """A throughput job for load.py or load10.py, with a queue of its own."""
    count = options.messages or MESSAGES[protocol][mode] // (QUICK if options.quick else 1)
    return dict(broker.address(), protocol=protocol,
                queue="bench-%d-%d" % (os.getpid(), next(_queue_numbers)),
                durable=mode == "durable", size=size, count=count,
                window=options.window, prefetch=options.prefetch, ack_every=options.ack_every,
                rate=0)


def warm_up(broker, options):
    """Each mode once, unmeasured: caches, allocators, code that is loaded on first use."""
    for protocol, mode in itertools.product(options.protocols, options.modes):
        job = make_job(broker, protocol, mode, 256, options)
        job["count"] = min(20000, job["count"])
        run_load(job)


# --- the report ---

def median(results, figure):
    values = [result[figure] for result in results if result.get(figure) is not None]
    return statistics.median(values) if values else None


def ratio(ours, theirs):
    return ours / theirs if ours and theirs else None


def number(value, digits=0):
    if value is None:
        return "-"
    return "{:,.{}f}".format(value, digits)


def print_table(names, rows, groups):
    """rows: list of (label, {broker name: list of results}); groups: (title, figure, digits)."""
    compared = len(names) == 2
    head = "".join(name.rjust(10) for name in names) + "  ratio" * compared
    table = [[""] + [title for title, _, _ in groups], [""] + [head] * len(groups)]
    for row_label, results in rows:
        cells = [row_label]
        for _, figure, digits in groups:
            values = [median(results[name], figure) for name in names]
            texts = [number(value, digits).rjust(10) for value in values]
            if compared:
                texts.append(number(ratio(*values), 2).rjust(7))
            cells.append("".join(texts))
        table.append(cells)
    print_cells(table)


def print_cells(table):
    """Print rows of cells, anything with a text, in columns."""
    table = [[str(cell) for cell in cells] for cells in table]
    widths = [max(map(len, column)) for column in zip(*table)]
    for cells in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths)))
    print(flush=True)


def verdict(what, aim, ratios, above):
    """One line: is each ratio above (or below) the aim? ratios: list of (ratio or None, label)."""
    known = [pair for pair in ratios if pair[0] is not None]
    sign = ">=" if above else "<="
    if not known:
        return "%s %s %s: not measured" % (what, sign, aim)
    worst, label = (min if above else max)(known)
    met = worst >= aim if above else worst <= aim
    text = "%s %s %s: %s (%.3f%s)" % (what, sign, aim, "yes" if met else "NO", worst,
                                      ", " + label if label else "")
    if len(known) < len(ratios):
        text += "; %d of %d not measured" % (len(ratios) - len(known), len(ratios))
    return text


def report(brokers_, rows, protocols):
    names = [broker.name for broker in brokers_]
    for protocol in protocols:
        print("\n--- AMQP %s ---\n" % protocol)
        report_rows(names, [row for row in rows if row[0].split()[0] == protocol])
    print()
    for broker in brokers_:
        if broker.startup_s is not None:
            print("%s: start-up %.3f s, RSS after it %.1f MB"
                  % (broker.name, broker.startup_s, broker.idle_rss_mb))
    if len(brokers_) == 2:
        ours, theirs = brokers_
        startup = [(ratio(ours.startup_s, theirs.startup_s), "")]
        print(verdict("start-up", AIM_STARTUP, startup, above=False))


def report_rows(names, rows):
    """The tables and verdicts of one protocol."""
    print_table(names, rows, (
        ("messages/s", "messages_per_s", 0),
        ("peak RSS, MB", "peak_rss_mb", 1),
        ("broker CPU, us/message", "cpu_us", 1)))
    print_table(names, rows, (
        ("latency p50, ms", "latency_p50_ms", 2),
        ("latency p99, ms", "latency_p99_ms", 2),
        ("confirm p99, ms", "confirm_p99_ms", 2)))
    load_cpu = [result["load_cpu_us"]
                for _, results in rows for runs in results.values() for result in runs]
    if load_cpu:
        print("load generator: %.1f to %.1f us of CPU per message, both processes together"
              % (min(load_cpu), max(load_cpu)))
    if len(names) == 2:

        def ratios(figure):
            return [(ratio(*(median(results[name], figure) for name in names)), label)
                    for label, results in rows]

        print("%s / %s, worst row:" % tuple(names))
        print("  " + verdict("throughput", AIM_THROUGHPUT, ratios("messages_per_s"), above=True))
        print("  " + verdict("memory    ", AIM_MEMORY, ratios("peak_rss_mb"), above=False))


def machine():
    model = "unknown CPU"
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return "%s, %d cores, %s %s, Python %s" % (model, os.cpu_count(), platform.system(),
                                              platform.release(), platform.python_version())


def arguments():
    parser = argparse.ArgumentParser(
        description="Compare amqp_lite with RabbitMQ.",
        epilog="compare.py's docstring says what is measured and how.")
    add = parser.add_argument
    add("--quick", action="store_true", help="one short repetition")
    add("--only", choices=("amqp_lite", "rabbitmq"), help="one of the two, without ratios")
    add("--url", help="only this broker, which is running: amqp://user:password@host:port/vhost")
    add("--pid", type=int, help="process of the --url broker, for memory and CPU")
    add("--profile-broker", action="store_true",
        help="only amqp_lite, --quick, under cProfile: the top lines instead of figures")
    add("--protocols", nargs="+", choices=LOADS, default=list(LOADS), help="default: both")
    add("--modes", default=",".join(MODES), help="default: %(default)s")
    add("--sizes", default=",".join(map(str, SIZES)), help="of the bodies; default: %(default)s")
    add("--messages", type=int, metavar="N", help="per throughput run, instead of 30000 to 150000")
    add("--repeat", type=int, help="repetitions, instead of %d, with --quick 1" % REPEAT)
    add("--rate", type=int, default=2000, help="messages/s for latency; default: %(default)s")
    add("--window", type=int, default=200, help="unconfirmed messages; default: %(default)s")
    add("--prefetch", type=int, default=0, help="prefetch_count; default: no limit")
    add("--ack-every", type=int, default=1, help="messages per ack; default: %(default)s")
    add("--json", metavar="FILE", help="write every figure of every repetition")
    options = parser.parse_args()
    options.quick = options.quick or options.profile_broker
    options.modes = options.modes.split(",")
    options.sizes = [int(size) for size in options.sizes.split(",")]
    if not set(options.modes) <= set(MODES) or min(options.sizes) < 16:
        parser.error("modes are %s; sizes at least 16" % ", ".join(MODES))
    if options.prefetch and options.ack_every > options.prefetch:
        parser.error("--ack-every above --prefetch would wait for ever")
    options.repeat = options.repeat or (1 if options.quick else REPEAT)
    return options


def choose(options):
    if "1.0" in options.protocols:
        brokers.RabbitMQ.plugins = "rabbitmq_amqp1_0"
    if options.url:
        return [brokers.Running(options.url, options.pid)]
    if options.profile_broker:
        return [brokers.AmqpLite(profile=True)]
    chosen = {"amqp_lite": brokers.AmqpLite, "rabbitmq": brokers.RabbitMQ}
    return [chosen[options.only]()] if options.only else [make() for make in chosen.values()]


def run(under_test, options, rows, errors):
    """Start the brokers and measure; fills *rows* and *errors*, so that these outlive Ctrl-C."""
    for broker in under_test:
        broker.start()
        print("%s: %s" % (broker.name, broker.product), flush=True)
    for broker in under_test:
        attempt(errors, broker, "warm-up", warm_up, broker, options)
    for row in itertools.product(options.protocols, options.modes, options.sizes):
        label = "%-5s %-9s %5d" % row
        results = {broker.name: [] for broker in under_test}
        rows.append((label, results))
        for _ in range(options.repeat):
            for broker in under_test:
                result = attempt(errors, broker, label, measure, broker, *row, options)
                if result:
                    results[broker.name].append(result)
                    print("%s  %-10s %9s messages/s"
                          % (label, broker.name, number(result["messages_per_s"])), flush=True)


def attempt(errors, broker, label, function, *args):
    """Call *function*; a RunError is printed and kept, and the run goes on without this figure."""
    broker.check_alive()
    try:
        return function(*args)
    except RunError as e:
        errors.append("%s, %s: %s" % (broker.name, label, e))
        print(errors[-1], flush=True)
        return None


def save(name, under_test, options, rows, errors):
    with open(name, "w") as file:
        json.dump({
            "machine": machine(),
            "options": vars(options),
            "brokers": [{"name": broker.name, "product": broker.product,
                         "startup_s": broker.startup_s, "idle_rss_mb": broker.idle_rss_mb}
                        for broker in under_test],
            "rows": [{"row": label.split(), "runs": results} for label, results in rows],
            "errors": errors,
        }, file, indent=1)


def main():
    options = arguments()
    # SIGTERM must pass through the finally below, which ends the brokers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    print(machine())
    if os.getloadavg()[0] > 0.5:
        print("load average %.1f: something else is running, expect noise" % os.getloadavg()[0])
    rows, errors, under_test = [], [], []
    try:
        under_test = choose(options)
        run(under_test, options, rows, errors)
    except brokers.BrokerError as e:
        errors.append(str(e))
    except KeyboardInterrupt:
        errors.append("interrupted")
    finally:
        for broker in under_test:
            broker.stop()
    if rows and not options.profile_broker:
        report(under_test, rows, options.protocols)
    if options.json:
        save(options.json, under_test, options, rows, errors)
    if errors:
        print("\n%d failed:" % len(errors))
        for error in errors:
            print("  " + error)
        sys.exit(1)


if __name__ == "__main__":
    main()
