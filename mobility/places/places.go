// Package places remembers which encapsulations worked at which point of
// attachment. It gives an order to try them in, and excludes none: networks
// change, and what was blocked last time may pass now.
package places

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/godwit-net/godwit/mobility/netwatch"
	"github.com/godwit-net/godwit/transports"
)

// Bounds of what is remembered.
const (
	MaxPlaces = 256 // the place that was not seen for longest is forgotten
	maxNames  = 8   // encapsulations of a place
	maxName   = 16  // bytes of one's name
	maxFile   = 128 << 10
	maxKept   = 24 * 60 * 60 // seconds of a mapping
)

// A Memory remembers places, in a file if it has one. Its methods may be called
// from any goroutine.
type Memory struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	places []place // the one seen last comes last
	dirty  chan struct{}
	done   sync.WaitGroup
	closed bool
}

// A place is named by a hash, so that the file does not tell where its owner
// has been to whoever does not know the place.
type place struct {
	Key    string            `json:"key"`
	Worked []transports.Name `json:"worked"` // what was selected, then what answered too
	Path
}

// A Path is what was found out about the datagrams that leave a place. The zero value
// of a field means that nothing was.
type Path struct {
	// MTU is the largest IP packet that went, in bytes.
	MTU int `json:"mtu,omitempty"`
	// Kept is how long a NAT on the way was seen to keep an idle mapping, in seconds,
	// and Lost the shortest time after which one was gone.
	Kept int `json:"mapping_kept,omitempty"`
	Lost int `json:"mapping_lost,omitempty"`
}

func (p Path) sensible() bool {
	return p.MTU >= 0 && p.MTU <= 1<<16 && p.Kept >= 0 && p.Kept <= maxKept && p.Lost >= 0 && p.Lost <= maxKept
}

type file struct {
	Places []place `json:"places"`
}

// Open reads the Memory in path; an empty path keeps it in this process alone.
// A file that is broken or cannot be read is a warning and nothing is known. A
// nil logger discards. Close ends the goroutine that writes.
func Open(path string, logger *slog.Logger) *Memory {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	m := &Memory{path: path, log: logger, dirty: make(chan struct{}, 1)}
	if path == "" {
		return m
	}
	ps, err := read(path)
	if err != nil {
		logger.Warn("the memory of networks is lost; it fills again", slog.String("file", path), slog.Any("err", err))
	}
	m.places = ps
	m.done.Go(func() {
		for range m.dirty {
			m.save()
		}
	})
	return m
}

// Close writes what is not written yet and ends the Memory.
func (m *Memory) Close() {
	m.mu.Lock()
	closed := m.closed
	m.closed = true
	m.mu.Unlock()
	if !closed {
		close(m.dirty)
	}
	m.done.Wait()
}

// Order gives the encapsulations that worked at a, the one selected first; nil
// if nothing is known of the place.
func (m *Memory) Order(a netwatch.Attachment) []transports.Name {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys(a) {
		if i := m.find(k); i >= 0 {
			return slices.Clone(m.places[i].Worked)
		}
	}
	return nil
}

// Path gives what was found out about the datagrams that leave a.
func (m *Memory) Path(a netwatch.Attachment) Path {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys(a) {
		if i := m.find(k); i >= 0 {
			return m.places[i].Path
		}
	}
	return Path{}
}

// LearnPath says what was found out about the datagrams that leave a, if a is known by
// what worked there.
func (m *Memory) LearnPath(a netwatch.Attachment, p Path) {
	if !p.sensible() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	news := false
	for _, k := range keys(a) {
		if i := m.find(k); i >= 0 && m.places[i].Path != p {
			m.places[i].Path, news = p, true
		}
	}
	if news {
		m.changed()
	}
}

// changed has the file written, soon; the caller holds mu.
func (m *Memory) changed() {
	if m.closed || m.path == "" {
		return
	}
	select {
	case m.dirty <- struct{}{}:
	default:
	}
}

// Learn says what worked at a: the encapsulation selected, then others that
// answered. Nothing is learnt from nothing.
func (m *Memory) Learn(a netwatch.Attachment, worked []transports.Name) {
	worked = slices.Clone(worked[:min(len(worked), maxNames)])
	if len(worked) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	news := false
	ks := keys(a)
	slices.Reverse(ks) // the best key is the freshest
	for _, k := range ks {
		i := m.find(k)
		// A place that is as it was, and among the last, is no reason to write.
		news = news || i < 0 || i < len(m.places)-MaxPlaces/2 || !slices.Equal(m.places[i].Worked, worked)
		var path Path
		if i >= 0 {
			path = m.places[i].Path
			m.places = slices.Delete(m.places, i, i+1)
		}
		m.places = append(m.places, place{Key: k, Worked: worked, Path: path})
	}
	m.places = slices.Delete(m.places, 0, max(0, len(m.places)-MaxPlaces))
	if news {
		m.changed()
	}
}

func (m *Memory) find(key string) int {
	return slices.IndexFunc(m.places, func(p place) bool { return p.Key == key })
}

// keys name a place, the best name first. The router's link address is often
// not known yet in a network's first moments; then the rest has to do.
func keys(a netwatch.Attachment) (ks []string) {
	if !a.Prefix.IsValid() {
		return nil
	}
	if a.GatewayLink != "" {
		ks = append(ks, hash(a.GatewayLink, a.Prefix.Masked().String(), a.Kind()))
	}
	return append(ks, hash("", a.Gateway.String(), a.Prefix.Masked().String(), a.Kind()))
}

func hash(parts ...string) string {
	b, _ := json.Marshal(parts) // strings always can be
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// save writes the file, whole or not at all.
func (m *Memory) save() {
	m.mu.Lock()
	b, err := json.Marshal(file{m.places})
	m.mu.Unlock()
	if err == nil {
		err = write(m.path, b)
	}
	if err != nil {
		m.log.Warn("the memory of networks is not written", slog.String("file", m.path), slog.Any("err", err))
	}
}

func write(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".godwit-tmp-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// read gives the places in a file; those that make no sense are left out.
func read(path string) ([]place, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	return parse(b)
}

func parse(b []byte) ([]place, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("not understood: %w", err)
	}
	seen := make(map[string]bool)
	ps := slices.DeleteFunc(f.Places, func(p place) bool {
		bad := len(p.Key) != 32 || seen[p.Key] || len(p.Worked) == 0 || len(p.Worked) > maxNames ||
			slices.ContainsFunc(p.Worked, func(n transports.Name) bool { return n == "" || len(n) > maxName })
		bad = bad || !p.sensible()
		seen[p.Key] = true
		return bad
	})
	return slices.Clone(ps[max(0, len(ps)-MaxPlaces):]), nil
}
