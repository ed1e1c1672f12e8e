//! `tar`: as much of it as `kubectl cp` needs, both ways.

use std::fs;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use crate::args::Args;
use crate::{Outcome, complain};

const BLOCK: usize = 512;

/// `tar cf FILE PATH…` and `tar xf FILE [-C DIR]`, with `-` for the standard
/// streams; flags about owners and times are accepted and mean nothing.
pub fn run(mut args: Args) -> Outcome {
    let directory = args.option("-C")?.or(args.option("--directory")?);
    args.flag("--no-same-owner");
    let keep_modes = !args.flag("--no-same-permissions");
    let mode = args.positional("c or x")?;
    let mode = mode.trim_start_matches('-').to_owned();
    if let Some(odd) = mode.chars().find(|c| !"cxfmpovz".contains(*c)) {
        return Err(format!("option {odd:?} is not supported"));
    }
    let file = if mode.contains('f') { args.positional("FILE")? } else { "-".to_owned() };
    if let Some(directory) = directory {
        std::env::set_current_dir(&directory).map_err(|e| format!("{directory}: {e}"))?;
    }
    let of = |e: io::Error| format!("{file}: {e}");
    if mode.contains('c') {
        let out: Box<dyn Write> = match file.as_str() {
            "-" => Box::new(io::stdout().lock()),
            path => Box::new(fs::File::create(path).map_err(of)?),
        };
        create(&mut BufWriter::new(out), &args.rest())
    } else if mode.contains('x') {
        let input: Box<dyn Read> = match file.as_str() {
            "-" => Box::new(io::stdin().lock()),
            path => Box::new(fs::File::open(path).map_err(of)?),
        };
        extract(&mut BufReader::new(input), keep_modes).map(|()| 0)
    } else {
        Err("say c or x".to_owned())
    }
}

fn create(out: &mut impl Write, paths: &[String]) -> Outcome {
    let mut failed = 0;
    for path in paths {
        if let Err(e) = add(out, Path::new(path)) {
            complain(format_args!("tar: {path}: {e}"));
            failed = 2;
        }
    }
    out.write_all(&[0; 2 * BLOCK]).and_then(|()| out.flush()).map_err(|e| e.to_string())?;
    Ok(failed)
}

/// Adds a path and all below it.
fn add(out: &mut impl Write, path: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let mut name: PathBuf = path.components().filter(|c| !matches!(c, Component::RootDir)).collect();
    if name.as_os_str().is_empty() {
        name.push(".");
    }
    if meta.is_dir() {
        let name = [name.as_os_str().as_bytes(), b"/"].concat();
        let head = header(out, &meta, &name, b"", b'5', 0)?;
        out.write_all(&head)?;
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        return entries.iter().try_for_each(|entry| add(out, &entry.path()));
    }
    let name = name.as_os_str().as_bytes();
    if meta.is_symlink() {
        let target = fs::read_link(path)?;
        let head = header(out, &meta, name, target.as_os_str().as_bytes(), b'2', 0)?;
        return out.write_all(&head);
    }
    if !meta.is_file() {
        return Ok(());
    }
    let file = fs::File::open(path)?;
    let head = header(out, &meta, name, b"", b'0', meta.len())?;
    out.write_all(&head)?;
    // The file may grow or shrink meanwhile; the header's size holds.
    let copied = io::copy(&mut file.take(meta.len()), out)?;
    io::copy(&mut io::repeat(0).take(meta.len() - copied + padding(meta.len())), out)?;
    Ok(())
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn octal(field: &mut [u8], value: u64) {
    let text = format!("{value:0width$o}", width = field.len() - 1);
    if text.len() < field.len() {
        field[..text.len()].copy_from_slice(text.as_bytes());
    } else {
        // Too large for digits: GNU's binary form.
        let at = field.len() - 8;
        field[at..].copy_from_slice(&value.to_be_bytes());
        field[0] = 0x80;
    }
}

/// A header; names that do not fit are written before it, in GNU's way.
fn header(
    out: &mut impl Write,
    meta: &fs::Metadata,
    name: &[u8],
    link: &[u8],
    kind: u8,
    size: u64,
) -> io::Result<[u8; BLOCK]> {
    for (text, kind) in [(name, b'L'), (link, b'K')] {
        if text.len() > 100 {
            let size = text.len() as u64 + 1;
            let head = header(&mut io::sink(), meta, b"././@LongLink", b"", kind, size)?;
            out.write_all(&head)?;
            out.write_all(text)?;
            io::copy(&mut io::repeat(0).take(1 + padding(size)), out)?;
        }
    }
    let mut head = [0; BLOCK];
    let fit = |text: &[u8], field: &mut [u8]| {
        let n = text.len().min(field.len());
        field[..n].copy_from_slice(&text[..n]);
    };
    fit(name, &mut head[..100]);
    octal(&mut head[100..108], u64::from(meta.mode() & 0o7777));
    octal(&mut head[108..116], meta.uid().into());
    octal(&mut head[116..124], meta.gid().into());
    octal(&mut head[124..136], size);
    octal(&mut head[136..148], u64::try_from(meta.mtime()).unwrap_or(0));
    head[148..156].fill(b' ');
    head[156] = kind;
    fit(link, &mut head[157..257]);
    head[257..265].copy_from_slice(b"ustar  \0");
    let sum = head.iter().map(|b| u64::from(*b)).sum();
    octal(&mut head[148..155], sum);
    Ok(head)
}

struct Entry {
    path: PathBuf,
    link: PathBuf,
    kind: u8,
    mode: u32,
    size: u64,
}

/// What extension headers said about the next entry.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

fn extract(input: &mut impl Read, keep_modes: bool) -> Result<(), String> {
    let mut pending = Pending::default();
    while let Some(head) = read_header(input)? {
        let size = number(&head[124..136])?;
        match head[156] {
            b'x' => pax(&read_data(input, size)?, &mut pending)?,
            b'g' => drop(read_data(input, size)?),
            b'L' => pending.path = Some(text(&read_data(input, size)?).to_vec()),
            b'K' => pending.link = Some(text(&read_data(input, size)?).to_vec()),
            _ => {
                let entry = entry(&head, std::mem::take(&mut pending), size)?;
                let path = entry.path.display().to_string();
                unpack(input, &entry, keep_modes).map_err(|e| format!("{path}: {e}"))?;
            }
        }
    }
    Ok(())
}

/// The next header; `None` at the end.
fn read_header(input: &mut impl Read) -> Result<Option<[u8; BLOCK]>, String> {
    let mut head = [0; BLOCK];
    match input.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map_err(|e| e.to_string())?,
    }
    if head.iter().all(|b| *b == 0) {
        // What follows is padding; the sender may still be writing it.
        io::copy(input, &mut io::sink()).map_err(|e| e.to_string())?;
        return Ok(None);
    }
    let mut blank = head;
    blank[148..156].fill(b' ');
    let sum: u64 = blank.iter().map(|b| u64::from(*b)).sum();
    if number(&head[148..156])? != sum {
        return Err("this is no tar archive".to_owned());
    }
    Ok(Some(head))
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

fn number(field: &[u8]) -> Result<u64, String> {
    if field[0] & 0x80 != 0 {
        let tail = field[field.len() - 8..].try_into().map_err(|_| "a bad number")?;
        return Ok(u64::from_be_bytes(tail));
    }
    let digits = String::from_utf8_lossy(text(field)).trim().to_owned();
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(&digits, 8).map_err(|_| format!("{digits:?} is no octal number"))
}

fn read_data(input: &mut impl Read, size: u64) -> Result<Vec<u8>, String> {
    if size > 1 << 20 {
        return Err("an extension header is too large".to_owned());
    }
    let mut data = Vec::new();
    input.take(size + padding(size)).read_to_end(&mut data).map_err(|e| e.to_string())?;
    data.truncate(usize::try_from(size).map_err(|e| e.to_string())?);
    Ok(data)
}

/// PAX records: `LENGTH KEY=VALUE\n`.
fn pax(mut data: &[u8], pending: &mut Pending) -> Result<(), String> {
    while !data.is_empty() {
        let bad = || "a bad extension header".to_owned();
        let space = data.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize = std::str::from_utf8(&data[..space]).ok().and_then(|t| t.parse().ok()).ok_or_else(bad)?;
        let record = data.get(space + 1..length.saturating_sub(1)).ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], record[equals + 1..].to_vec());
        match key {
            b"path" => pending.path = Some(value),
            b"linkpath" => pending.link = Some(value),
            b"size" => pending.size = String::from_utf8_lossy(&value).parse().ok(),
            _ => {}
        }
        data = &data[length..];
    }
    Ok(())
}

fn entry(head: &[u8; BLOCK], pending: Pending, size: u64) -> Result<Entry, String> {
    let path = pending.path.unwrap_or_else(|| {
        let (prefix, name) = (text(&head[345..500]), text(&head[..100]));
        // GNU archives keep something else in the prefix' place.
        let prefixed = !prefix.is_empty() && &head[257..263] == b"ustar\0";
        if prefixed { [prefix, b"/", name].concat() } else { name.to_vec() }
    });
    let path = PathBuf::from(std::ffi::OsString::from_vec(path));
    let link = pending.link.unwrap_or_else(|| text(&head[157..257]).to_vec());
    if path.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(format!("{}: leads out of the directory", path.display()));
    }
    let path = path.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    let mode = u32::try_from(number(&head[100..108])? & 0o7777).map_err(|e| e.to_string())?;
    let link = PathBuf::from(std::ffi::OsString::from_vec(link));
    Ok(Entry { path, link, kind: head[156], mode, size: pending.size.unwrap_or(size) })
}

fn unpack(input: &mut impl Read, entry: &Entry, keep_modes: bool) -> io::Result<()> {
    let path = &entry.path;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    let links = matches!(entry.kind, b'1' | b'2');
    if links && fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path)?;
    }
    match entry.kind {
        b'5' if path.as_os_str().is_empty() => {}
        b'5' => fs::create_dir_all(path)?,
        b'2' => symlink(&entry.link, path)?,
        b'1' => fs::hard_link(&entry.link, path)?,
        b'0' | 0 => {
            // A running program cannot be written to, but replaced.
            let _ = fs::remove_file(path);
            let mut file = fs::File::create(path)?;
            let copied = io::copy(&mut input.by_ref().take(entry.size), &mut file)?;
            if copied < entry.size {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short"));
            }
            if keep_modes {
                file.set_permissions(fs::Permissions::from_mode(entry.mode))?;
            }
            io::copy(&mut input.take(padding(entry.size)), &mut io::sink())?;
            return Ok(());
        }
        _ => {}
    }
    io::copy(&mut input.take(entry.size + padding(entry.size)), &mut io::sink()).map(drop)
}
