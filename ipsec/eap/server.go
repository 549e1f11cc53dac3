package eap

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"strings"
)

// A Server authenticates one peer. One goroutine owns it.
type Server struct {
	// Name is what the server calls itself in the challenge.
	Name string
	// Hash finds the NTHash of a user's password; ok is false for names nobody
	// has, and for those that may not try now. The name is as the peer sent it,
	// less the domain before a backslash. It is called once at most.
	Hash func(name string) (hash Secret, ok bool)
	// Random is crypto/rand.Reader by default.
	Random io.Reader

	id        uint8
	state     serverState
	rounds    int
	challenge []byte
	tried     string
	refused   bool
	user      string
	msk       Secret
}

type serverState uint8

const (
	serverIdentity serverState = iota
	serverChallenge
	serverAccepting // the right password came; the peer has to accept us
	serverRefusing  // the wrong one came; the peer is told
	serverDone
)

// Start gives the first packet, which asks for an identity. It is called once.
func (s *Server) Start() []byte {
	b := s.random(1)
	s.id = b[0]
	return Packet{Code: CodeRequest, ID: s.id, Type: TypeIdentity}.Append(nil)
}

func (s *Server) random(n int) []byte {
	b := make([]byte, n)
	if s.Random != nil {
		if _, err := io.ReadFull(s.Random, b); err == nil {
			return b
		}
	}
	rand.Read(b)
	return b
}

// User is who proved the password; empty before.
func (s *Server) User() string { return s.user }

// Refused tells that a wrong password or an unknown name came. The peer is told,
// and may answer or not.
func (s *Server) Refused() bool { return s.refused }

// Tried is the name whose password was tried, right or not, for the log; empty
// before.
func (s *Server) Tried() string { return s.tried }

// MSK is the key that both ends have once Receive gave a Success packet; else nil.
func (s *Server) MSK() Secret {
	if s.state != serverDone {
		return nil
	}
	return s.msk
}

// Receive takes a response and gives the next packet. done tells that it is the
// last one, and err whether it is a Failure: ErrRefused for a wrong password or an
// unknown name, between which nothing that the peer sees makes a difference, and
// ErrFormat for nonsense. One attempt is all that a Server allows.
func (s *Server) Receive(b []byte) (next []byte, done bool, err error) {
	p, err := Parse(b)
	if err == nil && (p.Code != CodeResponse || p.ID != s.id) {
		err = ErrFormat
	}
	if s.rounds++; s.rounds > maxRounds || s.state == serverDone {
		err = ErrFormat
	}
	if err != nil {
		return s.fail(err)
	}
	switch {
	case s.state == serverIdentity && p.Type == TypeIdentity:
		// Whom the peer says to be counts for nothing: the name that goes into the
		// proof does.
		s.challenge = s.random(challengeLen)
		s.state = serverChallenge
		return s.ask(operation(opChallenge, s.id+1, []byte{challengeLen}, s.challenge, []byte(s.Name))), false, nil
	case p.Type != TypeMSCHAPv2:
		return s.fail(ErrRefused) // a Nak, most likely
	}
	op, _, data, err := parseOperation(p.Data)
	if err != nil {
		return s.fail(err)
	}
	switch {
	case s.state == serverChallenge && op == opResponse:
		return s.check(data)
	case s.state == serverAccepting && op == opSuccess:
		s.state = serverDone
		return Packet{Code: CodeSuccess, ID: s.id}.Append(nil), true, nil
	case s.state == serverRefusing:
		return s.fail(ErrRefused)
	}
	return s.fail(ErrFormat)
}

func (s *Server) ask(data []byte) []byte {
	s.id++
	return Packet{Code: CodeRequest, ID: s.id, Type: TypeMSCHAPv2, Data: data}.Append(nil)
}

func (s *Server) fail(err error) ([]byte, bool, error) {
	s.state, s.user, s.msk = serverDone, "", nil
	return Packet{Code: CodeFailure, ID: s.id}.Append(nil), true, err
}

// check judges the peer's proof.
func (s *Server) check(data []byte) ([]byte, bool, error) {
	if len(data) < 1+responseLen || data[0] != responseLen || len(data) > 1+responseLen+maxName {
		return s.fail(ErrFormat)
	}
	name := string(data[1+responseLen:])
	user := bareName(name)
	s.tried = user
	hash, known := s.Hash(user)
	if known = known && len(hash) == NTHashLen; !known {
		// As much work as for a name that exists.
		hash = s.random(NTHashLen)
	}
	challenge := challengeHash(data[1:17], s.challenge, name)
	shown, want := data[25:49], ntResponse(challenge, hash)
	if subtle.ConstantTimeCompare(shown, want) != 1 || !known {
		s.state, s.refused = serverRefusing, true
		// E=691: authentication failure; R=0: no other attempt. RFC 2759, Section 6
		text := "E=691 R=0 C=" + strings.ToUpper(hex.EncodeToString(s.random(challengeLen))) + " V=3 M=Wrong name or password"
		return s.ask(operation(opFailure, s.id, []byte(text))), false, nil
	}
	s.state, s.user = serverAccepting, user
	text := authenticatorResponse(hash, want, challenge) + " M=Welcome"
	next := s.ask(operation(opSuccess, s.id, []byte(text)))
	s.msk = sessionKey(hash, want)
	return next, false, nil
}
