use std::fs;

use tempfile::TempDir;

use super::*;

fn one(path: &Path, most_bytes: u64) -> LogFiles {
    LogFiles::open(&Place::File { path: path.to_owned(), most_bytes }).unwrap()
}

fn say(files: &LogFiles, line: &str) {
    files.write(Severity::INFO, line.as_bytes()).unwrap();
}

#[test]
fn a_file_goes_on_where_it_was() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.log");
    say(&one(&path, u64::MAX), "one\n");
    say(&one(&path, u64::MAX), "two\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
}

/// As klog has it: the bound itself is not reached.
#[test]
fn a_file_is_emptied_before_it_is_as_large_as_its_bound() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.log");
    let text = || fs::read_to_string(&path).unwrap();
    let files = one(&path, 9);
    say(&files, "one\n");
    say(&files, "two\n");
    assert_eq!(text(), "one\ntwo\n");
    say(&files, "three\n");
    assert_eq!(text(), "three\n");
    say(&files, "longer than the bound\n");
    say(&files, "4\n");
    assert_eq!(text(), "4\n");
    // One byte makes the difference.
    let files = one(&path, 10);
    say(&files, "1234567\n");
    assert_eq!(text(), "1234567\n");
    let files = one(&path, 13);
    say(&files, "1234\n");
    assert_eq!(text(), "1234\n");
    let files = one(&path, 11);
    say(&files, "1234\n");
    assert_eq!(text(), "1234\n1234\n");
    // What the process before has left counts.
    let files = one(&path, 6);
    say(&files, "five\n");
    assert_eq!(text(), "five\n");
}

#[test]
fn a_file_that_somebody_else_has_emptied_has_room() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.log");
    let files = one(&path, 10);
    say(&files, "12345678\n");
    fs::write(&path, "x\n").unwrap();
    say(&files, "1234\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "x\n1234\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("missing").join("a.log");
    let error = LogFiles::open(&Place::File { path: path.clone(), most_bytes: 1 }).unwrap_err();
    let said = format!("{error:#}");
    assert!(said.starts_with(&format!("cannot open the log file {}; set --log-file", path.display())), "{said}");
    assert!(said.ends_with(": No such file or directory (os error 2)"), "{said}");
    let place = Place::Folder { folders: vec![path.clone()], one_output: false, most_bytes: 1 };
    let error = format!("{:#}", LogFiles::open(&place).unwrap_err());
    assert!(error.starts_with(&format!("cannot make a log file in {}; set --log-dir", path.display())), "{error}");
}

#[test]
fn what_is_no_plain_file_is_never_emptied() {
    let files = one(Path::new("/dev/null"), 4);
    for _ in 0..3 {
        say(&files, "longer\n");
    }
}

/// What the files of a folder hold, by the part of the name that tells the severity.
fn contents(folder: &Path, severity: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let part = format!(".log.{severity}.");
    let of_severity = entries.filter(|entry| entry.file_name().to_string_lossy().contains(&part));
    of_severity.map(|entry| fs::read_to_string(entry.path()).unwrap()).collect()
}

fn said_in_folder(one_output: bool) -> [Vec<String>; 3] {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    let folders = vec![missing, folder.path().to_owned()];
    let files = LogFiles::open(&Place::Folder { folders, one_output, most_bytes: 1 << 20 }).unwrap();
    assert!(contents(folder.path(), "WARNING").is_empty(), "it has no line yet");
    for (severity, line) in [(Severity::INFO, "i\n"), (Severity::WARNING, "w\n"), (Severity::ERROR, "e\n")] {
        files.write(severity, line.as_bytes()).unwrap();
    }
    let links = fs::read_dir(folder.path()).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.is_symlink() && path.exists()
    });
    assert_eq!(links.count(), 3);
    ["INFO", "WARNING", "ERROR"].map(|severity| contents(folder.path(), severity))
}

#[test]
fn a_folder_has_a_file_for_each_severity() {
    assert_eq!(said_in_folder(false), [["i\nw\ne\n"], ["w\ne\n"], ["e\n"]]);
    assert_eq!(said_in_folder(true), [["i\n"], ["w\n"], ["e\n"]]);
}
