package config

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxClients bounds what is read from clients/.
const maxClients = 65536

// rescanAfter is how old a snapshot may be when a key is not in it and the
// folder looks unchanged. A folder's time of change is coarse, and an editor
// may write a file in place; so looks are not trusted for longer, and strangers
// cause no more than one reading a second.
const rescanAfter = time.Second

// A snapshot is what clients/ held at one time.
type snapshot struct {
	byKey   map[string]entry // by ClientRecord.index
	changed time.Time        // the folder's time of change, read before its files
	scanned time.Time        // when it was read, by the caller's clock
	number  uint64           // grows with each reading
}

// An entry is one client with the looks of its file.
type entry struct {
	record ClientRecord
	stamp  stamp
}

// A stamp tells whether a file may have changed.
type stamp struct {
	modified time.Time
	size     int64
}

func (d *ServerDir) clientsPath() string { return filepath.Join(d.path, clientsDir) }

func (d *ServerDir) recordPath(name string) string {
	return filepath.Join(d.clientsPath(), name+".toml")
}

// lock keeps other processes from writing to clients/.
func (d *ServerDir) lock() (unlock func(), err error) {
	if err := makeDir(d.clientsPath()); err != nil {
		return nil, err
	}
	return lockFile(filepath.Join(d.clientsPath(), clientsLock))
}

// knownRecord is readRecord for a client that ought to be there.
func (d *ServerDir) knownRecord(name string) (*ClientRecord, error) {
	r, _, err := d.readRecord(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, d.noSuchClient(name)
	}
	if err != nil {
		return nil, cannotRead(d.recordPath(name), err)
	}
	return r, nil
}

// readRecord reads one client's file with its looks. A missing file gives an
// error that matches fs.ErrNotExist.
func (d *ServerDir) readRecord(name string) (*ClientRecord, stamp, error) {
	path := d.recordPath(name)
	// Looks first: a change while reading makes them old, never too new.
	info, err := os.Stat(path)
	if err != nil {
		return nil, stamp{}, err
	}
	data, err := readFile(path)
	if err != nil {
		return nil, stamp{}, err
	}
	r, err := parseRecord(path, name, data)
	return r, stamp{info.ModTime(), info.Size()}, err
}

// scan reads all of clients/, in order of names. Broken files are in broken;
// err is set if the folder itself cannot be read.
func (d *ServerDir) scan() (entries []entry, broken []error, err error) {
	files, err := os.ReadDir(d.clientsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, cannotRead(d.clientsPath(), err)
	}
	for _, f := range files {
		name, isRecord := strings.CutSuffix(f.Name(), ".toml")
		if !isRecord || CheckName(name) != nil || len(entries) >= maxClients {
			continue
		}
		r, s, err := d.readRecord(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			broken = append(broken, cannotRead(d.recordPath(name), err))
		default:
			entries = append(entries, entry{*r, s})
		}
	}
	return entries, broken, nil
}

// Clients gives all clients in order of names, read afresh. The error joins
// what is wrong with single files; the other clients are given with it.
func (d *ServerDir) Clients() ([]ClientRecord, error) {
	entries, broken, err := d.scan()
	if err != nil {
		return nil, err
	}
	records := make([]ClientRecord, 0, len(entries))
	for _, e := range entries {
		records = append(records, e.record)
	}
	return records, errors.Join(broken...)
}

// places are what clients have already, by one look at the folder. The caller
// holds the lock for as long as it uses them.
type places struct {
	d          *ServerDir
	names      map[string]string       // in lower case: names that differ in case only are one file on some systems
	expired    map[string]ClientRecord // those whose links were not used in time: who takes the name gets their place
	identities map[string]string       // index to name
	used       map[netip.Addr]bool
	// All addresses up to these are in use. Searching from the beginning would
	// make the price of many clients grow with the square of their number.
	last4, last6 netip.Addr
	count        int
}

func (d *ServerDir) places(now time.Time) (*places, error) {
	entries, broken, err := d.scan()
	if err != nil {
		return nil, err
	}
	// A broken file may hold an address that would be given twice.
	if len(broken) > 0 {
		return nil, broken[0]
	}
	p := &places{
		d: d, expired: make(map[string]ClientRecord), names: make(map[string]string, len(entries)), identities: make(map[string]string, len(entries)),
		used: make(map[netip.Addr]bool, 2*len(entries)), count: len(entries),
	}
	for _, e := range entries {
		p.identities[e.record.index()] = e.record.Name
		lower := strings.ToLower(e.record.Name)
		if e.record.Joined || now.Before(e.record.Expires) {
			p.names[lower] = e.record.Name
		} else {
			p.expired[lower] = e.record
		}
		p.used[e.record.Inner4], p.used[e.record.Inner6] = true, true
	}
	return p, nil
}

// give gives a new client the next free inner addresses, if its name and
// identity are not in use.
func (p *places) give(r *ClientRecord) error {
	if other, taken := p.names[strings.ToLower(r.Name)]; taken {
		return &Error{What: "a client of this name exists", Where: other, Do: "choose another name, or run godwit server remove " + other + " first"}
	}
	if other, taken := p.identities[r.index()]; taken && r.Identity != "" {
		return &Error{What: "a user of this identity exists", Where: r.Identity, Do: "remove it first: godwit server remove " + other}
	}
	if p.count >= maxClients {
		return &Error{What: "65,536 clients are there already", Where: p.d.clientsPath(), Do: "remove some with godwit server remove NAME"}
	}
	if old, ok := p.expired[strings.ToLower(r.Name)]; ok {
		delete(p.used, old.Inner4)
		delete(p.used, old.Inner6)
		p.last4, p.last6 = before(p.last4, old.Inner4), before(p.last6, old.Inner6)
	}
	var free4, free6 bool
	r.Inner4, free4 = firstFree(p.d.Config.Pool4, p.used, p.last4)
	r.Inner6, free6 = firstFree(p.d.Config.Pool6, p.used, p.last6)
	if !free4 || !free6 {
		return &Error{What: "no inner address is free", Where: filepath.Join(p.d.path, serverFile), Do: "remove clients or widen pool4 and pool6"}
	}
	p.names[strings.ToLower(r.Name)] = r.Name
	if r.Identity != "" {
		p.identities[r.index()] = r.Name
	}
	p.used[r.Inner4], p.used[r.Inner6] = true, true
	p.last4, p.last6 = r.Inner4, r.Inner6
	p.count++
	return nil
}

// before gives last, or the address before freed if that comes first.
func before(last, freed netip.Addr) netip.Addr {
	if !last.Less(freed) {
		return freed.Prev()
	}
	return last
}

// firstFree gives the lowest address of a pool that is neither the network's
// own, nor the server's, nor an IPv4 broadcast address, nor in use, nor up to
// after, which may be zero.
func firstFree(pool netip.Prefix, used map[netip.Addr]bool, after netip.Addr) (netip.Addr, bool) {
	a := ServerAddress(pool)
	if a.Less(after) {
		a = after
	}
	for range len(used) + 1 {
		a = a.Next()
		if !pool.Contains(a) || a.Is4() && !pool.Contains(a.Next()) {
			break
		}
		if !used[a] {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// ServerAddress is the inner address of the server in a pool.
func ServerAddress(pool netip.Prefix) netip.Addr { return pool.Masked().Addr().Next() }

// Remove removes a client. A running server refuses it from its next lookup on.
func (d *ServerDir) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	err = os.Remove(d.recordPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return d.noSuchClient(name)
	}
	if err != nil {
		return cannotWrite(d.recordPath(name), err)
	}
	return syncDir(d.clientsPath())
}

func (d *ServerDir) noSuchClient(name string) error {
	e := &Error{What: "no client of this name", Where: name, Do: "godwit server clients lists them", Err: ErrUnknownClient}
	if records, _ := d.Clients(); len(records) > 0 {
		names := make([]string, 0, len(records))
		for _, r := range records {
			names = append(names, r.Name)
		}
		if s := Suggest(name, names); s != "" {
			e.Do = "did you mean " + s + "?"
		}
	}
	return e
}

// index is what a client is found by: its public key, or its identity or the key
// of its invitation with letters before it that make it longer than any key.
func (r *ClientRecord) index() string {
	switch {
	case r.Identity != "":
		return identityIndex(r.Identity)
	case r.PublicKey != nil:
		return string(r.PublicKey)
	}
	return invitationIndex(r.Invitation)
}

// indexes are all that a client is found by: one whose link was good for one use
// is found by that too, to say that it was used.
func (r *ClientRecord) indexes() []string {
	if r.Invitation != nil && r.PublicKey != nil {
		return []string{r.index(), invitationIndex(r.Invitation)}
	}
	return []string{r.index()}
}

func invitationIndex(key ed25519.PublicKey) string {
	return strings.Repeat("v", ed25519.PublicKeySize+1) + string(key)
}

func identityIndex(identity string) string {
	return strings.Repeat("i", ed25519.PublicKeySize+1) + strings.ToLower(identity)
}

// LookupUser finds the user with an identity, as LookupClient does with a key.
func (d *ServerDir) LookupUser(identity string, now time.Time) (*ClientRecord, error) {
	return d.lookup(identityIndex(identity), now)
}

// AddUser makes a user of IKEv2 clients that are not godwit: r says name,
// identity, and one of shared key, password hash or certificate. It gets the next free inner
// addresses. A name or identity in use gives an *Error.
func (d *ServerDir) AddUser(r ClientRecord, now time.Time) (*ClientRecord, error) {
	if err := CheckName(r.Name); err != nil {
		return nil, err
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	removeTemporaries(d.clientsPath())
	r.Created, r.Joined = now, true
	p, err := d.places(now)
	if err != nil {
		return nil, err
	}
	if err := p.give(&r); err != nil {
		return nil, err
	}
	text := r.encode()
	if _, err := parseRecord(d.recordPath(r.Name), r.Name, text); err != nil {
		return nil, err
	}
	return &r, writeFile(d.recordPath(r.Name), text)
}

// LookupClient finds the client whose key is public. The error matches
// ErrUnknownClient, or ErrExpired if its link was not used in time. Clients
// invited, changed or removed since the last call are noticed.
func (d *ServerDir) LookupClient(public ed25519.PublicKey, now time.Time) (*ClientRecord, error) {
	return d.lookup(string(public), now)
}

func (d *ServerDir) lookup(index string, now time.Time) (*ClientRecord, error) {
	e, known, fresh, number := d.find(index, now)
	if known {
		fresh = d.upToDate(&e)
	}
	if !fresh {
		d.refresh(now, number)
		e, known, _, _ = d.find(index, now)
	}
	if !known {
		return nil, ErrUnknownClient
	}
	r := e.record
	d.mu.Lock()
	r.Joined = r.Joined || d.joined[index]
	d.mu.Unlock()
	if !r.Joined && !now.Before(r.Expires) {
		return nil, ErrExpired
	}
	return &r, nil
}

// find looks into the snapshot; fresh tells that the folder seems not to have
// changed since, and number how many readings of it have begun.
func (d *ServerDir) find(index string, now time.Time) (e entry, known, fresh bool, number uint64) {
	var changed time.Time
	if info, err := os.Stat(d.clientsPath()); err == nil {
		changed = info.ModTime()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e, known = d.clients.byKey[index]
	age := now.Sub(d.clients.scanned)
	fresh = d.clients.byKey != nil && changed.Equal(d.clients.changed) && age >= 0 && age < rescanAfter
	return e, known, fresh, d.begun
}

// upToDate tells whether e is what its file says, and reads the file again if
// that alone mends it. Only this file: when thousands of clients join, reading
// all of them for each would take too long.
func (d *ServerDir) upToDate(e *entry) bool {
	info, err := os.Stat(d.recordPath(e.record.Name))
	if err != nil {
		return false
	}
	if e.stamp == (stamp{info.ModTime(), info.Size()}) {
		return true
	}
	r, s, err := d.readRecord(e.record.Name)
	if err != nil || r.index() != e.record.index() {
		return false
	}
	*e = entry{*r, s}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clients.byKey[r.index()] = *e
	return true
}

// refresh reads the folder again, unless another goroutine did that began after
// the reading of this number. One that was under way may have passed the file
// that the caller is after. A folder that cannot be read keeps what was known.
func (d *ServerDir) refresh(now time.Time, number uint64) {
	d.scanning.Lock()
	defer d.scanning.Unlock()
	d.mu.Lock()
	done := d.clients.number > number
	if !done {
		d.begun++
	}
	next := snapshot{byKey: map[string]entry{}, scanned: now, number: d.begun}
	d.mu.Unlock()
	if done {
		return
	}
	// The time of change first: a change while reading causes another reading.
	if info, err := os.Stat(d.clientsPath()); err == nil {
		next.changed = info.ModTime()
	}
	entries, broken, err := d.scan()
	for _, e := range append(broken, err) {
		if e != nil && d.Logger != nil {
			d.Logger.Warn("client file not used", slog.Any("err", e))
		}
	}
	if err != nil {
		return
	}
	for _, e := range entries {
		for _, index := range e.record.indexes() {
			if _, twice := next.byKey[index]; !twice {
				next.byKey[index] = e
			}
		}
	}
	d.mu.Lock()
	d.clients = next
	d.mu.Unlock()
}

// MarkJoined records that a client has connected, so that its link no longer
// expires. It is remembered until the end of the process even if the file
// cannot be written, which is the error then. A client that was removed or
// invited anew meanwhile stays as it is.
func (d *ServerDir) MarkJoined(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	public := ""
	d.mu.Lock()
	for key, e := range d.clients.byKey {
		if e.record.Name == name && e.record.index() == key {
			public = key
			if e.record.Joined || d.joined[key] {
				d.mu.Unlock()
				return nil
			}
			d.joined[key] = true
		}
	}
	d.mu.Unlock()

	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	r, err := d.knownRecord(name)
	if err != nil {
		return err
	}
	if r.Joined || public != "" && r.index() != public {
		return nil
	}
	r.Joined = true
	return writeFile(d.recordPath(name), r.encode())
}
