//! `demo`: a workload for examples and tests, and a toolbox where no shell is.
//!
//! Without arguments it serves HTTP, TCP and UDP. The first argument, or the
//! name it is called by, chooses another tool; [`USAGE`] lists them. Only std.

mod args;
mod dns;
mod files;
mod http_get;
mod lookup;
mod net;
mod serve;
mod state;
mod sys;
mod tar;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use args::Args;

/// The result of a tool: its exit code, or why it failed.
type Outcome = Result<u8, String>;

const USAGE: &str = "usage: demo [TOOL] [ARGUMENTS]
  serve [--http PORT] [--tcp PORT] [--udp PORT] [--drain SECONDS] [--health-file FILE] [--log-requests]
        (the default; ports 8080, 9000, 9001; 'off' switches one off)
        HTTP: / /hostname /env /file?path= /exit?code= /hang[?seconds=] /healthz[?fail=1|0] /readyz[?fail=1|0]
              /echo[?msg=] /clientip /headers /slow?ms= /log?msg= /alloc?mb=
  sleep SECONDS              wait; ends on SIGTERM
  alloc MEGABYTES            take memory and keep it; ends on SIGTERM
  exit CODE [--after SECONDS] [--message FILE TEXT] [TEXT...]
  echo TEXT... | log [--repeat N] [--interval MS] [--stderr] LINE...
  cat [FILE...] | write FILE TEXT | rm FILE... | mkdir DIR... | ls DIR | stat FILE
  test -e|-f|-d FILE | test-exists FILE
  env [NAME] | id | hostname | tty | true | false
  tar cf - PATH... | tar xf - [-C DIR]
  http-get [--count N] [--timeout SECONDS] [--interval MS] [--header K:V] URL   (N = 0: until SIGTERM)
  udp-send [--timeout SECONDS] HOST PORT TEXT | tcp-send [--timeout SECONDS] HOST PORT TEXT
  resolve NAME | dns TYPE NAME [@SERVER[:PORT]]
";

fn main() -> ExitCode {
    let mut argv: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let called = argv.first().map(|a| a.rsplit('/').next().unwrap_or(a).to_owned()).unwrap_or_default();
    if !argv.is_empty() {
        argv.remove(0);
    }
    let tool = if called != "demo" && TOOLS.iter().any(|(name, _)| *name == called) {
        called
    } else if argv.first().is_none_or(|a| a.starts_with("--")) && argv.first().is_none_or(|a| a != "--help") {
        "serve".to_owned()
    } else {
        argv.remove(0)
    };
    let Some((_, run)) = TOOLS.iter().find(|(name, _)| *name == tool) else {
        let help = matches!(tool.as_str(), "help" | "--help" | "-h");
        eprint!("{}{USAGE}", if help { String::new() } else { format!("demo: no tool {tool:?}\n") });
        return ExitCode::from(if help { 0 } else { 2 });
    };
    let outcome = run(Args::new(argv));
    let flushed = io::stdout().flush();
    match outcome {
        Ok(_) if flushed.is_err() => ExitCode::from(1),
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            complain(format_args!("{tool}: {message}"));
            ExitCode::from(1)
        }
    }
}

/// A line on stderr, in one piece: what a reader of both streams finds is lines.
fn complain(line: std::fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

type Tool = fn(Args) -> Outcome;

const TOOLS: &[(&str, Tool)] = &[
    ("serve", serve::run),
    ("sleep", sleep),
    ("alloc", alloc),
    ("exit", exit),
    ("echo", echo),
    ("log", log),
    ("cat", files::cat),
    ("write", files::write),
    ("rm", files::rm),
    ("mkdir", files::mkdir),
    ("ls", files::ls),
    ("stat", files::stat),
    ("test", files::test),
    ("test-exists", files::test_exists),
    ("env", env),
    ("id", id),
    ("hostname", hostname),
    ("tty", tty),
    ("true", |_| Ok(0)),
    ("false", |_| Ok(1)),
    ("tar", tar::run),
    ("http-get", http_get::run),
    ("udp-send", net::udp_send),
    ("tcp-send", net::tcp_send),
    ("resolve", lookup::resolve),
    ("dns", lookup::dns),
];

fn sleep(mut args: Args) -> Outcome {
    // Process 1 ignores signals that nothing waits for.
    let signals = sys::Signals::block();
    let text = args.positional("SECONDS")?;
    args.done()?;
    thread::spawn(move || {
        let signal = signals.wait();
        std::process::exit(128 + signal);
    });
    match text.as_str() {
        "infinity" => loop {
            thread::park();
        },
        _ => thread::sleep(args::seconds(&text)?),
    }
    Ok(0)
}

/// Takes memory page by page, so that limits have something to limit.
fn alloc(mut args: Args) -> Outcome {
    let signals = sys::Signals::block();
    let text = args.positional("MEGABYTES")?;
    args.done()?;
    let megabytes: usize = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    let ballast: Vec<_> = (0..megabytes).map(|_| std::hint::black_box(vec![1_u8; 1 << 20])).collect();
    println!("{} MiB taken", ballast.len());
    let signal = signals.wait();
    drop(std::hint::black_box(ballast));
    Ok(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

fn exit(mut args: Args) -> Outcome {
    let after = args.option("--after")?.map(|s| args::seconds(&s)).transpose()?;
    let message = args.option_pair("--message")?;
    let code = args.positional("CODE")?;
    let code = code.parse().map_err(|_| format!("{code:?} is not an exit code"))?;
    let text = args.rest().join(" ");
    if !text.is_empty() {
        println!("{text}");
    }
    if let Some(after) = after {
        sleep(Args::new(vec![after.as_secs_f64().to_string()]))?;
    }
    if let Some((file, text)) = message {
        std::fs::write(&file, text).map_err(|e| format!("{file}: {e}"))?;
    }
    Ok(code)
}

fn echo(args: Args) -> Outcome {
    println!("{}", args.rest().join(" "));
    Ok(0)
}

fn log(mut args: Args) -> Outcome {
    let repeat = args.number("--repeat", 1)?;
    let interval = Duration::from_millis(args.number("--interval", 0)?);
    let to_stderr = args.flag("--stderr");
    let lines = args.rest();
    for round in 0..repeat {
        if round > 0 {
            thread::sleep(interval);
        }
        for line in &lines {
            let line = line.replace("{n}", &round.to_string());
            if to_stderr {
                complain(format_args!("{line}"));
            } else {
                println!("{line}");
            }
        }
    }
    Ok(0)
}

fn env(mut args: Args) -> Outcome {
    if let Ok(name) = args.positional("NAME") {
        let Some(value) = std::env::var_os(&name) else { return Ok(1) };
        println!("{}", value.to_string_lossy());
        return Ok(0);
    }
    print!("{}", state::environment());
    Ok(0)
}

fn id(_: Args) -> Outcome {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    // Real, effective, saved, file system: the effective one counts.
    let effective = |ids: Vec<String>| ids.get(1).cloned().unwrap_or_default();
    let (uid, gid) = (effective(field("Uid:")), effective(field("Gid:")));
    println!("uid={uid} gid={gid} groups={}", field("Groups:").join(","));
    Ok(0)
}

fn hostname(_: Args) -> Outcome {
    println!("{}", state::hostname());
    Ok(0)
}

fn tty(_: Args) -> Outcome {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        println!("not a tty");
        return Ok(1);
    }
    let (rows, columns) = sys::window_size();
    println!("tty {rows}x{columns}");
    Ok(0)
}
