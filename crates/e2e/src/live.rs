//! A release as it goes, for people: stage, weight, gates, and the share of traffic as the client
//! measures it. On a terminal a block that is drawn again; elsewhere a line whenever something changed.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lab_app::load::Snapshot;
use serde_json::Value;

use crate::cluster::text;
use crate::history::Seen;
use crate::scene::Scene;

/// How often the view is drawn.
const DRAW: Duration = Duration::from_millis(500);
/// Over how long the client's share is measured.
const SHARE: usize = 6;
/// How often a line is printed where nothing changes.
const QUIET: Duration = Duration::from_secs(10);

/// Shows the release until it has ended, however it ends, and gives its last status.
///
/// # Errors
/// If it does not end within the deadline.
pub async fn show(scene: &Scene, title: &str, versions: (&str, &str), deadline: Duration) -> Result<Seen> {
    let started = Instant::now();
    let terminal = std::io::stdout().is_terminal();
    let mut shares: Vec<Snapshot> = Vec::new();
    let (mut drawn, mut said, mut said_at) = (0, String::new(), Instant::now());
    loop {
        shares.push(scene.client());
        if shares.len() > SHARE {
            shares.remove(0);
        }
        let (Some(now), Some(then)) = (shares.last(), shares.first()) else { bail!("no figures") };
        let window = now.since(then).answers;
        let share = window.share(versions.1).map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let seen = scene.latest();
        if let Some(seen) = &seen {
            let client = format!(
                "client: {share} by {}, {} answers, {} bad ({} by {})",
                versions.1,
                now.answers.total(),
                now.answers.bad(),
                now.answers.bad_of(versions.1),
                versions.1
            );
            if terminal {
                drawn = draw(&block(title, seen, &client, started.elapsed()), drawn)?;
            } else {
                let line = format!("{} {} {}", seen.phase(), text(&seen.object, "/status/stage"), seen.weight());
                if line != said || said_at.elapsed() > QUIET {
                    println!(
                        "{:5.0} s  {title}: {line}; {client}; {}",
                        started.elapsed().as_secs_f64(),
                        gates(seen).join("; ")
                    );
                    said = line;
                    said_at = Instant::now();
                }
            }
            if seen.number() > 0 && seen.condition("Completed").1 == "True" && !seen.outcome().is_empty() {
                println!("{:5.0} s  {title}: {}", started.elapsed().as_secs_f64(), seen.message());
                return Ok(seen.clone());
            }
        }
        if started.elapsed() > deadline {
            bail!("{title}: not over within {deadline:?}: {}", seen.map_or_else(String::new, |seen| seen.line()));
        }
        tokio::time::sleep(DRAW).await;
    }
}

fn gates(seen: &Seen) -> Vec<String> {
    let gates = seen.object.pointer("/status/gates").and_then(Value::as_array);
    let shown = |gate: &Value| {
        format!(
            "{} {}: {} of {}",
            text(gate, "/gate"),
            text(gate, "/verdict"),
            text(gate, "/value"),
            text(gate, "/limit")
        )
    };
    gates.into_iter().flatten().map(shown).collect()
}

fn block(title: &str, seen: &Seen, client: &str, elapsed: Duration) -> String {
    let mut block = String::new();
    let stage = text(&seen.object, "/status/stage");
    let _ = writeln!(block, "{title}  {:.0} s  {} {stage}", elapsed.as_secs_f64(), seen.phase());
    let permille = seen.weight().trim_end_matches('%').parse::<f64>().unwrap_or(0.0);
    // A percentage: at most 40 characters.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let filled = (permille * 0.4).round().clamp(0.0, 40.0) as usize;
    let _ = writeln!(block, "  weight {:>5}  [{}{}]", seen.weight(), "#".repeat(filled), ".".repeat(40 - filled));
    let _ = writeln!(block, "  {client}");
    for gate in gates(seen) {
        let _ = writeln!(block, "  gate {gate}");
    }
    let _ = writeln!(block, "  {}", seen.message());
    block
}

/// Draws over what was drawn before, and says how many lines it took.
fn draw(block: &str, before: usize) -> Result<usize> {
    let mut out = std::io::stdout().lock();
    if before > 0 {
        write!(out, "\x1b[{before}A\x1b[J")?;
    }
    let width = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(100_usize);
    let mut lines = 0;
    for line in block.lines() {
        writeln!(out, "{}", line.chars().take(width).collect::<String>())?;
        lines += 1;
    }
    out.flush()?;
    Ok(lines)
}
