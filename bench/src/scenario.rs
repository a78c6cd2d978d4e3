//! What is measured: a scenario × a peer → [`report::Run`]s with named parameters and figures.
//!
//! Called by the command line, on the load generator's thread. Every name that a goal, a condition
//! (`--fail-if`) or a comparison may use stands in the tables here, and is what a scenario writes.
//!
//! `peer` is `tickfan`, `naive`, `batch`, `uws`, `nats`, or `loop`: a bare loop without any server,
//! that is the anchor of some scenarios. All parameters are texts.
//!
//! # Figures that every run against a server has
//!
//! Over the measured window; those of latency are received − intended, over all that was sampled.
//!
//! | figure | is |
//! |---|---|
//! | `deliveries_per_s` | updates delivered to subscribers; a conflated one counts the changes that it represents |
//! | `updates_per_s` | updates received, conflated or not |
//! | `feed_per_s` | events published |
//! | `p50_us` `p90_us` `p99_us` `p999_us` `p9999_us` `max_us` | latency; of a conflated update its newest change |
//! | `oldest_p99_us` | latency of the oldest change in an update (the same where nothing is conflated) |
//! | `missing_share` | deliveries that were due and never came, of all due |
//! | `updates_per_read` | updates in one read of a client |
//! | `bytes_per_s` | bytes received |
//! | `server_cpu_s` `server_cpu_cores` | CPU seconds of the server's process, and those per second |
//! | `deliveries_per_cpu_s` | deliveries per CPU second of the server |
//! | `server_rss_mib` | resident memory |
//! | `server_switches_per_s` | context switches, voluntary and not |
//! | `server_syscalls_per_s` | system calls, where perf may count them |
//! | `generator_cpu_cores` | CPU seconds per second of the load generator; above 0.95 there is a remark that it was the limit |
//! | `publisher_lag_us` | by how much the latest tick was published late |
//! | `window_s` | the length of the window |
//!
//! Histograms (nanoseconds): `received` (as `p50_us`), `oldest` (as `oldest_p99_us`), and in
//! `end-to-end` and `latency` those of the stages.
//!
//! # Scenarios
//!
//! | scenario | parameters | figures besides | peers |
//! |---|---|---|---|
//! | `fixed` | `budget_ms=20` `clients=1000` `topics=20` `encoding=json\|binary` | – (the headline is `server_cpu_cores` at the same `deliveries_per_s`) | all |
//! | `capacity` | `mode=every\|conflated` `budget_ms=20` `clients=1000` `topics=20` `encoding` | `capacity_per_s`: `deliveries_per_s` of the highest rate that holds p99 < 50 ms and all but 1 % delivered; the other figures are that trial's; `trials` | all (a rival knows no conflation: its one search stands in both modes) |
//! | `latency` | `case=loop` | `in_p50_us` `in_p99_us` (receive → another thread → send done, to the reader) | `loop` |
//! | `latency` | `case=one` (class 0, 1 client × 1 topic) `encoding` | `in_p50_us` `in_p99_us`: venue bytes in → received; `gateway_p50_us` `gateway_p99_us`: venue bytes in → send begun | all; the latter two figures `tickfan` only |
//! | `latency` | `case=hundred` (class 0, 100 × 10, 2,000/s) | – | all |
//! | `latency` | `case=thousand` (class 0, 1,000 × 10, 2,000/s) | – | all |
//! | `latency` | `case=load` `load_percent=1\|50\|90` of the capacity found, budget 20 ms, 1,000 × 20 | – | all |
//! | `latency` | `case=fast-alone` (20 clients of the 1 ms class) | – | `tickfan` |
//! | `latency` | `case=fast-beside` (the same beside 980 of the 20 ms class at 90 % load) | `slow_p99_us`; the others are the fast clients' | `tickfan` |
//! | `stall` | `variant=with\|without` stalled and slow clients; `budget_ms=20` | latency figures are the others'; `old_updates` (per stalled client, median: updates older than 1 s before the first fresh one), `first_age_ms` (age of the first that a stalled client reads), `caught_up_ms` (resume → first fresh one), `rss_growth_kib` | all |
//! | `idle` | `connections=10000` `topics=10` | `rss_kib_per_connection`, `cpu_us_per_connection_s`, `connect_s` | all |
//! | `storm` | `clients=2000\|10000` `topics=10` | `last_image_ms` (to the last client's last image; a rival has no images: to its first update), `first_p50_ms`, `upgraded_p50_ms`, `upgraded_last_ms`, `server_cpu_s`; half vanish: `silence_before_ms` and `silence_after_ms` (the longest silence of a survivor), `silence_added_ms` their difference | all |
//! | `subscribers` | `case=search` `budget_ms=10\|50\|100\|1000` `feed_x=1\|10\|100` `topics=20` | `clients`: the most with < 0.1 % late; `sends_per_s`, `late_share` | `tickfan` |
//! | `subscribers` | `case=loop` `budget_ms` | `sends_per_s` of a bare loop over as many sockets; `clients` = those × the budget | `loop` |
//! | `subscribers` | `case=cost` `budget_ms=100` `feed_x=1\|10\|100` | `server_cpu_cores` of the same clients at each rate of the feed | `tickfan` |
//! | `end-to-end` | `budget_ms=20` | `venue_p50_us` `venue_p99_us` (intended → venue bytes in), `gateway_p50_us` `gateway_p99_us` (→ send begun), `wire_p50_us` `wire_p99_us` (→ received); histograms `venue` `gateway` `wire` | `tickfan` |
//! | `ingest` | `recording` | `decode_ns`, `book_ns`, `snapshot_ns` a message; `messages_per_s` of all stages | `tickfan` |
//! | `bytes` | `form=delta\|image` `encoding=json\|binary` `depth=20` | `bytes_per_change` | `tickfan` |
//!
//! One call of [`measure`] is one (scenario, peer, round): the unit that alternates between peers, and
//! that an interrupted set resumes at. Its runs come in the order of the table.
