package eap

import (
	"crypto/rand"
	"crypto/subtle"
	"io"
)

// A Peer proves a password to a server. One goroutine owns it.
type Peer struct {
	Name     string // at most 256 bytes
	Password Secret
	// Random is crypto/rand.Reader by default.
	Random io.Reader

	rounds   int
	expected string // what a server that knows the password says
	msk      Secret
	verified bool
	success  bool
	refused  bool
	nak      bool // the server wanted a method that we do not know
}

// MSK is the key that both ends have once the server's Success came; else nil.
func (p *Peer) MSK() Secret {
	if !p.success {
		return nil
	}
	return p.msk
}

// Receive takes the server's packet and gives the answer, nil when there is
// none: done is set at the end. The error is ErrRefused when the server took the
// password for wrong, ErrProof when it did not prove to know it, ErrMethod when it
// insists on another method, ErrFormat for nonsense.
func (p *Peer) Receive(b []byte) (answer []byte, done bool, err error) {
	k, err := Parse(b)
	if err != nil {
		return nil, true, err
	}
	if p.rounds++; p.rounds > maxRounds || p.success {
		return nil, true, ErrFormat
	}
	switch k.Code {
	case CodeFailure:
		if p.expected == "" && p.nak {
			return nil, true, ErrMethod
		}
		return nil, true, ErrRefused
	case CodeSuccess:
		// Not before the server has proven itself: an attacker could send it.
		if !p.verified {
			return nil, true, ErrProof
		}
		p.success = true
		return nil, true, nil
	case CodeResponse:
		return nil, true, ErrFormat
	}
	reply := func(t uint8, data []byte) ([]byte, bool, error) {
		return Packet{Code: CodeResponse, ID: k.ID, Type: t, Data: data}.Append(nil), false, nil
	}
	switch k.Type {
	case TypeIdentity:
		return reply(TypeIdentity, []byte(p.Name[:min(len(p.Name), maxName)]))
	case TypeNotification:
		return reply(TypeNotification, nil)
	case TypeMSCHAPv2:
	default:
		// "the desired authentication Type". RFC 3748, Section 5.3.1
		p.nak = true
		return reply(TypeNak, []byte{TypeMSCHAPv2})
	}
	op, id, data, err := parseOperation(k.Data)
	if err != nil {
		return nil, true, err
	}
	switch {
	case op == opChallenge && p.expected == "" && len(data) > challengeLen && data[0] == challengeLen:
		return reply(TypeMSCHAPv2, p.respond(id, data[1:1+challengeLen]))
	case op == opSuccess && p.expected != "":
		if len(data) < len(p.expected) || subtle.ConstantTimeCompare(data[:len(p.expected)], []byte(p.expected)) != 1 {
			return nil, true, ErrProof
		}
		p.verified = true
		return reply(TypeMSCHAPv2, []byte{opSuccess})
	case op == opFailure && p.expected != "" && !p.refused:
		p.refused = true // the Failure packet follows
		return reply(TypeMSCHAPv2, []byte{opFailure})
	}
	return nil, true, ErrFormat
}

func (p *Peer) respond(id uint8, challenge []byte) []byte {
	mine := make([]byte, challengeLen)
	r := p.Random
	if r == nil {
		r = rand.Reader
	}
	if _, err := io.ReadFull(r, mine); err != nil {
		rand.Read(mine)
	}
	name := p.Name[:min(len(p.Name), maxName)]
	hash := NTHash(p.Password)
	c := challengeHash(mine, challenge, name)
	response := ntResponse(c, hash)
	p.expected = authenticatorResponse(hash, response, c)
	p.msk = sessionKey(hash, response)
	// Value-Size (8), peer's challenge, reserved, NT-Response, flags, name
	return operation(opResponse, id, []byte{responseLen}, mine, make([]byte, 8), response, []byte{0}, []byte(name))
}
