package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// stateVersion is that of the file's form.
const stateVersion = 1

// maxState bounds the file, in bytes; it may hold a resolv.conf.
const maxState = 4 << 20

// A State says what a process has changed, or was about to, on the machine: all
// that has to be undone. It is in a file before anything is done.
type State struct {
	Version    int        `json:"version"`
	PID        int        `json:"pid"`
	Device     string     `json:"device"`
	KillSwitch bool       `json:"kill_switch"`
	Plan       Plan       `json:"plan"`
	Names      *NamesFile `json:"names,omitempty"`
}

// A NamesFile is a resolv.conf(5) that was replaced.
type NamesFile struct {
	Path    string      `json:"path"` // of the file itself, not of links to it
	Mode    fs.FileMode `json:"mode"`
	Old     []byte      `json:"old"`
	New     []byte      `json:"new"`
	Missing bool        `json:"missing,omitempty"` // there was none
}

// ReadState reads the file that a process has left; nil if there is none.
func ReadState(file string) (*State, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var b []byte
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxState) {
		err = errors.New("not a file of this program")
	}
	if err == nil {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read what was changed: %w", err)
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read what was changed, %s: %w", file, err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("%s was written by another version of godwit: use that for godwit client cleanup", file)
	}
	return s, nil
}

// write replaces the file, whole or not at all.
func (s *State) write(file string) error {
	s.Version, s.PID = stateVersion, os.Getpid()
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(file, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write down what is changed: %w", err)
	}
	return nil
}

// replaceFile writes beside the file, syncs and renames.
func replaceFile(file string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".godwit-tmp-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	if d, err := os.Open(filepath.Dir(file)); err == nil {
		_ = d.Sync() // some file systems cannot; the file itself is safe
		_ = d.Close()
	}
	return nil
}
