//! How long an evaluation takes, and a gate's tick with all kept starts. Prints; asserts nothing.
//! Run: `cargo run --release -p canary-stats --example speed`
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use canary_stats::know::{requests_to_detect, share_gate};
use canary_stats::{AboveLimit, Alpha, BelowLimit, EventCounts, EventRate, Process, Relative, ShareCounts, Starts};

fn time(name: &str, times: u32, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let begin = Instant::now();
        for _ in 0..times {
            work();
        }
        best = best.min(begin.elapsed().as_secs_f64() / f64::from(times));
    }
    println!("{name:60} {:9.3} µs", best * 1e6);
}

fn main() {
    for limit in [0.0001, 0.01, 0.05, 0.5] {
        let (above, below) = (AboveLimit::new(limit).unwrap(), BelowLimit::new(limit).unwrap());
        for n in [30.0_f64, 300.0, 3e3, 3e4, 1e6, 1e9] {
            let (mut worst, mut at) = (0.0_f64, String::new());
            let sd = (n * limit).sqrt();
            let cases = [
                0.0,
                0.3 * n * limit,
                n * limit - sd,
                n * limit,
                n * limit + sd,
                n * limit + 5.0 * sd,
                3.0 * n * limit,
                n,
            ];
            for k in cases.map(|k| k.clamp(0.0, n).floor()) {
                let counts = ShareCounts::new(n, k).unwrap();
                for (name, run) in [
                    ("above", Box::new(|| above.log_e(black_box(&counts))) as Box<dyn Fn() -> f64>),
                    ("below", Box::new(|| below.log_e(black_box(&counts)))),
                ] {
                    let mut took = f64::INFINITY;
                    for _ in 0..10 {
                        let begin = Instant::now();
                        for _ in 0..50 {
                            black_box(run());
                        }
                        took = took.min(begin.elapsed().as_secs_f64() / 50.0);
                    }
                    if took > worst {
                        (worst, at) = (took, format!("{name}, k = {k}"));
                    }
                }
            }
            println!("limit {limit:6}, n = {n:10e}: slowest {:8.3} µs ({at})", worst * 1e6);
        }
    }
    let above = AboveLimit::new(0.01).unwrap();
    for (rate, share) in [(5.0, 0.003), (50.0, 0.003), (50.0, 0.01), (5000.0, 0.01)] {
        let mut starts = Starts::new(900);
        let mut carry = 0.0_f64;
        for tick in 0..900 {
            carry += rate * share;
            let k = carry.floor();
            carry -= k;
            starts.push(tick, &ShareCounts::new(rate, k).unwrap());
        }
        let name = format!("errorRate tick, {rate}/s at {share}, {} starts", starts.kept());
        time(&name, 200, || {
            let mut next = starts.clone();
            next.push(black_box(900), &ShareCounts::new(rate, 1.0).unwrap());
            black_box(next.log_e(&above));
        });
    }
    let relative = Relative::new(0.1).unwrap();
    let mut starts = Starts::new(900);
    for tick in 0..900 {
        starts.push(tick, &relative.tick(1.0, 20.0, 0.05).unwrap());
    }
    time("relative tick", 200, || {
        let mut next = starts.clone();
        next.push(black_box(900), &relative.tick(1.0, 20.0, 0.05).unwrap());
        black_box(next.log_e(&relative));
    });
    let mut starts = Starts::new(900);
    for tick in 0..900 {
        starts.push(tick, &EventCounts::new(1.0, 0.9).unwrap());
    }
    time("eventRate tick", 200, || {
        let mut next = starts.clone();
        next.push(black_box(900), &EventCounts::new(1.0, 0.9).unwrap());
        black_box(next.log_e(&EventRate::new()));
    });
    let alpha = Alpha::RELEASE.split(6, 5).unwrap();
    for n in [300.0, 3000.0, 49_000.0, 51_000.0, 1e9] {
        time(&format!("what a stage of {n} requests can know"), 1, || {
            black_box(share_gate(0.01, alpha, Alpha::RELEASE, black_box(n)).unwrap());
        });
    }
    for share in [0.5, 0.05, 0.02, 0.0105] {
        time(&format!("requests to detect {share}"), 1, || {
            black_box(requests_to_detect(0.01, alpha, black_box(share), 0.8).unwrap());
        });
    }
}
