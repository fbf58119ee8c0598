use std::os::unix::net::UnixStream;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn owner_and_group_may_connect_and_nobody_else() {
    let folder = folder();
    let path = folder.path().join("socket");
    let _bound = bind(&path, true).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o770);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_stale_socket_is_replaced() {
    let folder = folder();
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _bound = bind(&path, true).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn an_existing_socket_stays_when_it_is_not_to_be_removed() {
    let folder = folder();
    let path = folder.path().join("socket");
    let _other = UnixListener::bind(&path).unwrap();
    let error = bind(&path, false).unwrap_err();
    assert!(matches!(error, BindUnixError::Exists { .. }), "{error}");
    UnixStream::connect(&path).unwrap();
}

#[test]
fn what_is_not_a_socket_is_never_removed() {
    let folder = folder();
    let path = folder.path().join("file");
    fs::write(&path, "precious").unwrap();
    let error = bind(&path, true).unwrap_err();
    assert!(matches!(error, BindUnixError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let error = bind(folder.path(), true).unwrap_err();
    assert!(matches!(error, BindUnixError::NotASocket { .. }), "{error}");
}

#[test]
fn the_path_has_at_most_107_bytes() {
    let folder = folder();
    let name = |bytes: usize| folder.path().join("x".repeat(bytes - folder.path().as_os_str().len() - 1));
    let _bound = bind(&name(107), true).unwrap();
    let error = bind(&name(108), true).unwrap_err();
    assert!(matches!(error, BindUnixError::PathTooLong { bytes: 108, .. }), "{error}");
}

#[test]
fn a_missing_folder_is_named() {
    let folder = folder();
    let error = bind(&folder.path().join("none/socket"), true).unwrap_err();
    assert!(error.to_string().contains("/none for the socket does not exist; create it"), "{error}");
}

#[test]
fn a_socket_that_cannot_be_removed_is_told_of() {
    let folder = folder();
    let path = folder.path().join("socket");
    let _other = UnixListener::bind(&path).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    // Nothing hinders the superuser.
    if fs::write(folder.path().join("may write"), "").is_ok() {
        return;
    }
    let error = bind(&path, true).unwrap_err();
    assert!(matches!(error, BindUnixError::NotRemovable { .. }), "{error}");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_file_goes_with_the_listener() {
    let folder = folder();
    let path = folder.path().join("socket");
    let (listener, file) = bind(&path, true).unwrap();
    drop(file);
    assert!(!path.exists());
    drop(listener);
}

#[test]
fn the_file_of_a_successor_stays() {
    let folder = folder();
    let path = folder.path().join("socket");
    let first = bind(&path, true).unwrap();
    let _second = bind(&path, true).unwrap();
    drop(first);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_file_that_is_gone_already_is_no_trouble() {
    let folder = folder();
    let path = folder.path().join("socket");
    let bound = bind(&path, true).unwrap();
    fs::remove_file(&path).unwrap();
    drop(bound);
}
