//! Decides what `/metrics` says: the counters of an ordinary service in Prometheus' text format. A
//! series with labels is absent until it was first counted, as with the common client libraries;
//! series without labels stand at 0 from the start. Probes, metrics and faults are never counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Upper bounds of `http_request_duration_seconds`: the client libraries' usual ones, and 0.2.
pub const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What the service has counted since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: BTreeMap<(u16, &'static str), u64>,
    /// Not cumulative: answers in each bucket alone.
    buckets: [u64; BUCKETS.len()],
    duration_sum: f64,
    duration_count: u64,
    orders: u64,
    conflicts: u64,
    risk_blocks: u64,
    csp_violations: u64,
}

impl Metrics {
    /// Counts one answer and how long it took.
    pub fn answered(&mut self, code: u16, method: &'static str, duration: Duration) {
        let requests = self.requests.entry((code, method)).or_default();
        *requests = requests.saturating_add(1);
        let seconds = duration.as_secs_f64();
        self.duration_sum += seconds;
        self.duration_count = self.duration_count.saturating_add(1);
        let bucket = BUCKETS.iter().zip(self.buckets.iter_mut()).find(|(bound, _)| seconds <= **bound);
        if let Some((_, count)) = bucket {
            *count = count.saturating_add(1);
        }
    }

    /// Counts one order, and whether it conflicted or was blocked.
    pub fn ordered(&mut self, conflict: bool, risk_block: bool) {
        self.orders = self.orders.saturating_add(1);
        self.conflicts = self.conflicts.saturating_add(u64::from(conflict));
        self.risk_blocks = self.risk_blocks.saturating_add(u64::from(risk_block));
    }

    /// Counts one CSP report.
    pub fn csp_violation(&mut self) {
        self.csp_violations = self.csp_violations.saturating_add(1);
    }

    /// Answers counted with this code, all methods.
    #[must_use]
    pub fn requests_with(&self, code: u16) -> u64 {
        self.requests.iter().filter(|((counted, _), _)| *counted == code).map(|(_, count)| count).sum()
    }

    /// The text of `/metrics`.
    #[must_use]
    pub fn text(&self, staleness_seconds: f64) -> String {
        let mut text = String::with_capacity(2048);
        // Writing to a String cannot fail.
        let _ = self.write(&mut text, staleness_seconds);
        text
    }

    fn write(&self, text: &mut String, staleness_seconds: f64) -> std::fmt::Result {
        head(text, "http_requests_total", "counter", "Requests answered.")?;
        for ((code, method), count) in &self.requests {
            writeln!(text, "http_requests_total{{code=\"{code}\",method=\"{method}\"}} {count}")?;
        }
        let name = "http_request_duration_seconds";
        head(text, name, "histogram", "Time to answer a request.")?;
        let mut below = 0_u64;
        for (bound, count) in BUCKETS.iter().zip(self.buckets.iter()) {
            below = below.saturating_add(*count);
            writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {below}")?;
        }
        writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {}", self.duration_count)?;
        writeln!(text, "{name}_sum {}", self.duration_sum)?;
        writeln!(text, "{name}_count {}", self.duration_count)?;
        for (name, help, value) in [
            ("orders_total", "Orders placed.", self.orders),
            ("idempotency_conflicts_total", "Orders that conflicted.", self.conflicts),
            ("risk_blocks_total", "Orders blocked as a risk.", self.risk_blocks),
            ("csp_violations_total", "CSP reports received.", self.csp_violations),
        ] {
            head(text, name, "counter", help)?;
            writeln!(text, "{name} {value}")?;
        }
        let name = "ws_staleness_seconds";
        head(text, name, "gauge", "Age of the newest message on the web socket.")?;
        writeln!(text, "{name} {staleness_seconds}")?;
        let Some((cpu, memory)) = of_this_process() else { return Ok(()) };
        head(text, "process_cpu_seconds_total", "counter", "CPU time of this process.")?;
        writeln!(text, "process_cpu_seconds_total {cpu}")?;
        head(text, "process_resident_memory_bytes", "gauge", "Memory that this process holds.")?;
        writeln!(text, "process_resident_memory_bytes {memory}")
    }
}

/// CPU time in seconds and resident memory in bytes, as client libraries tell them; none where the kernel doesn't.
fn of_this_process() -> Option<(f64, u64)> {
    // Linux tells times to programs in hundredths of a second, whatever its own clock.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may hold anything, and ends with the last parenthesis.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    let cpu = (ticks()? + ticks()?) / TICKS;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let held = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = held.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some((cpu, kilobytes.saturating_mul(1024)))
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_never_answered_has_no_series() {
        let mut metrics = Metrics::default();
        assert!(!metrics.text(0.0).contains("http_requests_total{"));
        metrics.answered(200, "GET", Duration::from_millis(1));
        let text = metrics.text(0.0);
        assert!(text.contains("http_requests_total{code=\"200\",method=\"GET\"} 1\n"));
        assert!(!text.contains("code=\"500\""));
        metrics.answered(500, "GET", Duration::from_millis(1));
        assert!(metrics.text(0.0).contains("http_requests_total{code=\"500\",method=\"GET\"} 1\n"));
    }

    #[test]
    fn the_process_tells_its_cpu_and_memory() {
        let (cpu, memory) = of_this_process().unwrap();
        assert!(cpu >= 0.0 && memory > 100_000, "{cpu} {memory}");
        let text = Metrics::default().text(0.0);
        assert!(text.contains("\nprocess_cpu_seconds_total ") && text.contains("\nprocess_resident_memory_bytes "));
    }

    #[test]
    fn buckets_are_cumulative_and_include_their_bound() {
        let mut metrics = Metrics::default();
        for milliseconds in [5, 200, 201, 60_000] {
            metrics.answered(200, "GET", Duration::from_millis(milliseconds));
        }
        let text = metrics.text(0.0);
        for line in [
            "http_request_duration_seconds_bucket{le=\"0.005\"} 1\n",
            "http_request_duration_seconds_bucket{le=\"0.1\"} 1\n",
            "http_request_duration_seconds_bucket{le=\"0.2\"} 2\n",
            "http_request_duration_seconds_bucket{le=\"0.25\"} 3\n",
            "http_request_duration_seconds_bucket{le=\"10\"} 3\n",
            "http_request_duration_seconds_bucket{le=\"+Inf\"} 4\n",
            "http_request_duration_seconds_count 4\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn counters_without_labels_stand_at_zero_from_the_start() {
        let text = Metrics::default().text(1.5);
        for name in ["orders_total", "idempotency_conflicts_total", "risk_blocks_total", "csp_violations_total"] {
            assert!(text.contains(&format!("\n{name} 0\n")), "{name}");
        }
        assert!(text.contains("\nws_staleness_seconds 1.5\n"));
    }
}
