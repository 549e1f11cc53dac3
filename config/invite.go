package config

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io/fs"
	"os"
	"time"
)

// Invite makes a client with a new key and the next free inner addresses, and
// gives its link, which is good for validFor. A name in use gives an *Error,
// unless its link expired unused.
func (d *ServerDir) Invite(name string, now time.Time, validFor time.Duration) (*Link, error) {
	links, err := d.InviteAll([]string{name}, now, validFor)
	if err != nil {
		return nil, err
	}
	return links[0], nil
}

// InviteOnce is Invite for a link that is good for one use: who uses it first
// enrols a key of its own, and the link is worth nothing from then on.
func (d *ServerDir) InviteOnce(name string, now time.Time, validFor time.Duration) (*Link, error) {
	links, err := d.invite([]string{name}, now, validFor, true)
	if err != nil {
		return nil, err
	}
	return links[0], nil
}

// InviteAll is Invite for many clients, at little more than the price of one.
// After an error some of the clients may exist.
func (d *ServerDir) InviteAll(names []string, now time.Time, validFor time.Duration) ([]*Link, error) {
	return d.invite(names, now, validFor, false)
}

func (d *ServerDir) invite(names []string, now time.Time, validFor time.Duration, once bool) ([]*Link, error) {
	for _, name := range names {
		if err := CheckName(name); err != nil {
			return nil, err
		}
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	removeTemporaries(d.clientsPath())
	p, err := d.places(now)
	if err != nil {
		return nil, err
	}
	links := make([]*Link, 0, len(names))
	for _, name := range names {
		r := &ClientRecord{Name: name, Created: now, Expires: now.Add(validFor).UTC().Truncate(time.Second)}
		if err := p.give(r); err != nil {
			return nil, err
		}
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, &Error{What: "cannot make a key: " + oneLine(err.Error()), Err: err}
		}
		if once {
			r.Invitation = public
		} else {
			r.PublicKey = public
		}
		if err := writeFile(d.recordPath(name), r.encode()); err != nil {
			return nil, err
		}
		l := &Link{
			Endpoint: d.Config.Endpoint, ServerKey: d.Key.Public().(ed25519.PublicKey), CertHash: d.CertHash(),
			WebSocketPath: d.Config.WebSocketPath, Name: name, Once: once, Expires: r.Expires,
			UDPPorts: udpPorts(d.Config.Encapsulations),
		}
		copy(l.Seed[:], private.Seed())
		links = append(links, l)
	}
	return links, nil
}

// enrolmentContext begins what an invitation's key signs.
const enrolmentContext = "godwit enrolment v1\x00"

// enrolmentSize is that of an enrolment: the invitation's public key and its
// signature.
const enrolmentSize = ed25519.PublicKeySize + ed25519.SignatureSize

// enrolmentText is what an invitation's key signs to let own in at the server.
func enrolmentText(server, own ed25519.PublicKey) []byte {
	return bytes.Join([][]byte{[]byte(enrolmentContext), server, own}, nil)
}

// Enrolment lets a client's own key in where l is good for one use. It is no
// secret: nobody can use it without that key. docs/protocol.md, "Enrolment".
func (l *Link) Enrolment(own ed25519.PublicKey) []byte {
	key := l.PrivateKey()
	return append(bytes.Clone(key.Public().(ed25519.PublicKey)), ed25519.Sign(key, enrolmentText(l.ServerKey, own))...)
}

// Enrol makes own, whose holder has proven to be that, the key of the client
// that an invitation for one use was for. The error matches ErrUsed if another
// key took it, ErrExpired if it was not used in time, and ErrUnknownClient for
// what is no enrolment at this server. What it changes is on disk when it
// returns.
func (d *ServerDir) Enrol(own ed25519.PublicKey, enrolment []byte, now time.Time) (*ClientRecord, error) {
	if len(enrolment) != enrolmentSize {
		return nil, ErrUnknownClient
	}
	// The server keeps the public half only: whoever reads its files can enrol
	// nobody.
	invitation := ed25519.PublicKey(enrolment[:ed25519.PublicKeySize])
	if !ed25519.Verify(invitation, enrolmentText(d.Key.Public().(ed25519.PublicKey), own), enrolment[ed25519.PublicKeySize:]) {
		return nil, ErrUnknownClient
	}
	r, err := d.lookup(invitationIndex(invitation), now)
	if err != nil {
		return nil, err
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Another process may have been faster.
	r, _, err = d.readRecord(r.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrUnknownClient
	case err != nil:
		return nil, err
	case subtle.ConstantTimeCompare(r.Invitation, invitation) != 1:
		return nil, ErrUnknownClient
	case r.PublicKey != nil && subtle.ConstantTimeCompare(r.PublicKey, own) == 1:
		return r, nil
	case r.PublicKey != nil:
		return nil, ErrUsed
	}
	r.PublicKey, r.Joined = bytes.Clone(own), true
	path := d.recordPath(r.Name)
	if err := writeFile(path, r.encode()); err != nil {
		return nil, err
	}
	e := entry{record: *r}
	if info, err := os.Stat(path); err == nil {
		e.stamp = stamp{info.ModTime(), info.Size()}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, index := range r.indexes() {
		d.clients.byKey[index] = e
	}
	return r, nil
}
