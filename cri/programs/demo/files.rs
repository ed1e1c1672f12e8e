//! Tools for files and directories.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Outcome;
use crate::args::Args;

fn of(path: &str, error: &io::Error) -> String {
    format!("{path}: {error}")
}

/// Files, or standard input, to standard output.
pub fn cat(args: Args) -> Outcome {
    let files = args.rest();
    let mut out = io::stdout().lock();
    if files.is_empty() {
        copy_as_it_comes(&mut io::stdin().lock(), &mut out).map_err(|e| of("-", &e))?;
    }
    for path in files {
        let mut file = fs::File::open(&path).map_err(|e| of(&path, &e))?;
        copy_as_it_comes(&mut file, &mut out).map_err(|e| of(&path, &e))?;
    }
    Ok(0)
}

/// Copies without holding back half lines: somebody may be typing.
fn copy_as_it_comes(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(&buffer[..n])?;
        to.flush()?;
    }
}

pub fn write(mut args: Args) -> Outcome {
    let path = args.positional("FILE")?;
    fs::write(&path, args.rest().join(" ")).map_err(|e| of(&path, &e))?;
    Ok(0)
}

pub fn rm(args: Args) -> Outcome {
    for path in args.rest() {
        fs::remove_file(&path).map_err(|e| of(&path, &e))?;
    }
    Ok(0)
}

pub fn mkdir(mut args: Args) -> Outcome {
    args.flag("-p");
    for path in args.rest() {
        fs::create_dir_all(&path).map_err(|e| of(&path, &e))?;
    }
    Ok(0)
}

pub fn ls(mut args: Args) -> Outcome {
    args.flag("-1");
    let all = args.flag("-a");
    let mut paths = args.rest();
    if paths.is_empty() {
        paths.push(".".to_owned());
    }
    for path in paths {
        if !Path::new(&path).is_dir() {
            fs::symlink_metadata(&path).map_err(|e| of(&path, &e))?;
            println!("{path}");
            continue;
        }
        let entries = fs::read_dir(&path).map_err(|e| of(&path, &e))?;
        let mut names: Vec<_> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|n| all || !n.starts_with('.'));
        names.sort();
        for name in names {
            println!("{name}");
        }
    }
    Ok(0)
}

/// `mode=100644 uid=0 gid=0 size=3 type=file`, of what a link leads to.
pub fn stat(args: Args) -> Outcome {
    for path in args.rest() {
        let m = fs::metadata(&path).map_err(|e| of(&path, &e))?;
        let kind = if m.is_dir() { "dir" } else if m.is_file() { "file" } else { "other" };
        let (mode, uid, gid, size) = (m.mode(), m.uid(), m.gid(), m.size());
        println!("{path} mode={mode:o} uid={uid} gid={gid} size={size} type={kind}");
    }
    Ok(0)
}

/// `test -d PATH` and its like; `kubectl cp` asks so.
pub fn test(mut args: Args) -> Outcome {
    let what = args.positional("-e, -f or -d")?;
    let path = args.positional("FILE")?;
    let path = Path::new(&path);
    let yes = match what.as_str() {
        "-e" => path.exists(),
        "-f" => path.is_file(),
        "-d" => path.is_dir(),
        other => return Err(format!("{other:?} is not supported")),
    };
    Ok(u8::from(!yes))
}

pub fn test_exists(mut args: Args) -> Outcome {
    let path = args.positional("FILE")?;
    Ok(u8::from(!Path::new(&path).exists()))
}
