package config

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// tempPrefix begins the names of files that are being written. No file of ours
// begins with a dot.
const tempPrefix = ".godwit-tmp-"

// writeFile replaces path by data, whole or not at all. A new file has
// permissions 0600.
func writeFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tempPrefix+"*") // 0600
	if err != nil {
		return cannotWrite(path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = cannotWrite(path, err)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	// Synced before it is renamed, or the new name could survive a crash
	// without the bytes.
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename last; Windows has no such call.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	// Some file systems cannot sync a folder; the file itself is safe by then.
	_ = d.Sync()
	return d.Close()
}

// removeTemporaries removes what killed processes left in dir. The caller
// holds the lock that every writer in dir takes.
func removeTemporaries(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// cause gives an error of the os package without the path, which the message
// around it names already.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err.Error()
	}
	return oneLine(err.Error())
}

func cannotWrite(path string, err error) error {
	do := "make room or choose another folder with --dir"
	if errors.Is(err, fs.ErrPermission) {
		do = "run as the owner of the folder or choose another one with --dir"
	}
	return &Error{What: "cannot write: " + cause(err), Where: path, Do: do, Err: err}
}

func cannotRead(path string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	do := "restore it from a backup or set the folder up anew"
	if errors.Is(err, fs.ErrPermission) {
		do = "run as the owner of the file or choose another folder with --dir"
	}
	return &Error{What: "cannot read: " + cause(err), Where: path, Do: do, Err: err}
}

// makeDir makes a folder that only its owner can read.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		do := "choose another folder with --dir"
		return &Error{What: "cannot make the folder: " + cause(err), Where: dir, Do: do, Err: err}
	}
	return nil
}

// readSecret reads a file that nobody but its owner may read.
func readSecret(path string) ([]byte, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, cannotRead(path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, cannotRead(path, err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, &Error{What: "others can read this private key", Where: path, Do: "run chmod 600 " + path}
	}
	return data, nil
}

// writeKey writes an Ed25519 key as PKCS #8 in PEM (RFC 8410, Section 7).
func writeKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return &Error{What: "cannot encode a key: " + oneLine(err.Error()), Where: path, Err: err}
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// readKey reads what writeKey wrote.
func readKey(path string) (ed25519.PrivateKey, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if k, ok := key.(ed25519.PrivateKey); ok {
				return k, nil
			}
		}
	}
	return nil, &Error{What: "not an Ed25519 private key in PEM", Where: path, Do: "restore it from a backup or set the folder up anew"}
}

// DefaultDir is the folder of a role, "server" or "client": below
// $XDG_CONFIG_HOME/godwit, or ~/.config/godwit where that is not set.
func DefaultDir(role string) (string, error) {
	base := os.Getenv("XDG_CONFIG_HOME")
	// "If an implementation encounters a relative path […] it should consider
	// the path invalid and ignore it." XDG Base Directory Specification.
	if base == "" || !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", &Error{What: "no home folder", Do: "name a folder with --dir", Err: err}
		}
		base = filepath.Join(home, ".config")
	}
	return filepath.Join(base, "godwit", role), nil
}

// readFile reads a file of ours that may not be longer than maxFile.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, &Error{What: "not a file of up to 1 MiB", Where: path, Do: "restore it from a backup"}
	}
	return os.ReadFile(path)
}
