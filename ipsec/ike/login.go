package ike

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/godwit-net/godwit/ipsec/eap"
	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// ErrLogin tells an initiator that the responder took name or password for wrong.
var ErrLogin = eap.ErrRefused

// ErrLoginMethod tells an initiator that the responder insists on another EAP
// method than MSCHAPv2.
var ErrLoginMethod = eap.ErrMethod

// A loginState is IKE_AUTH in several rounds, RFC 7296, Section 2.16:
//
//	HDR, SK {IDi, [CERTREQ,] [IDr,] SAi2, TSi, TSr} -->
//	                <-- HDR, SK {IDr, [CERT,] AUTH, EAP}
//	HDR, SK {EAP}   -->
//	                <-- HDR, SK {EAP (success)}
//	HDR, SK {AUTH}  -->
//	                <-- HDR, SK {AUTH, SAr2, TSi, TSr}
type loginState struct {
	idi, idr *message.ID
	msk      Secret // once EAP has succeeded

	// At a responder.
	request []message.Payload // the first one
	server  *eap.Server
	user    *Peer
	why     error // there was no password to check; nobody but the log is told
	refused bool
	now     time.Time

	// At an initiator.
	first *request
	peer  *eap.Peer
}

// mskProof is what both ends put into AUTH at the end: "the shared secret
// established during EAP is used as the shared key". Section 2.16
func (s *Session) mskProof(sa *ikeSA, byInitiator bool) []byte {
	id := s.login.idr
	if byInitiator {
		id = s.login.idi
	}
	return sharedKeyAuth(sa.prf, s.login.msk, s.signedOctets(sa, byInitiator, id))
}

func (s *Session) mskProven(sa *ikeSA, a *message.Auth, byInitiator bool) error {
	if a.Method != message.AuthSharedKey || subtle.ConstantTimeCompare(a.Data, s.mskProof(sa, byInitiator)) != 1 {
		return fmt.Errorf("the keys of EAP differ: %w", ErrAuthentication)
	}
	return nil
}

// offerLogin answers an initiator that sent no AUTH: "An initiator indicates a
// desire to use EAP by leaving out the AUTH payload". Section 2.16. The
// certificate is shown whether it was asked for or not, as there is no other way
// for us to prove ourselves.
func (s *Session) offerLogin(now time.Time, sa *ikeSA, id *message.ID, ps []message.Payload) ([]message.Payload, func()) {
	l := s.resp.c.Logins
	idr := l.Local.payload(true)
	s.remote = identity(id)
	if !s.resp.loginBegins(s) {
		return s.fatal(now, refuse(message.AuthenticationFailed, "%q: too many logins under way", id.Data))
	}
	proof, err := s.certificateProof(s.signedOctets(sa, false, idr))
	if err != nil {
		return s.fatal(now, refuse(message.AuthenticationFailed, "%q: %w", id.Data, err))
	}
	s.login = &loginState{idi: id, idr: idr, request: ps}
	s.login.server = &eap.Server{Name: l.Local.String(), Hash: s.passwordHash, Random: s.rand.r}
	s.expire = now.Add(loginLifetime)
	reply := append([]message.Payload{idr}, proof...)
	return append(reply, &message.EAP{Message: s.login.server.Start()}), nil
}

// loginBegins counts a login; false means that there are too many. A signature
// costs us much, and anybody may ask for one: logins shall not take the room of
// peers that prove themselves at once, nor those from one place that of others.
func (r *Responder) loginBegins(s *Session) bool {
	at := place(r.source.Addr())
	total := 0
	for _, n := range r.logins {
		total += n
	}
	if r.logins[at] >= maxLoginsOfPlace || total >= r.c.HalfOpenLimit/4 {
		return false
	}
	if r.logins == nil {
		r.logins = map[netip.Prefix]int{}
	}
	r.logins[at]++
	s.loggingIn, s.loginFrom = true, at
	return true
}

// loginEnds takes a login out of the count, however it went.
func (r *Responder) loginEnds(s *Session) {
	if !s.loggingIn {
		return
	}
	s.loggingIn = false
	if r.logins[s.loginFrom]--; r.logins[s.loginFrom] <= 0 {
		delete(r.logins, s.loginFrom)
	}
}

// passwordHash finds what a password is checked with. Names that nobody has, and
// users that may not try now, get none.
func (s *Session) passwordHash(name string) (eap.Secret, bool) {
	l := s.login
	user, err := s.resp.c.Logins.Lookup(name)
	switch {
	case err != nil:
		l.why = err
	case user == nil || len(user.NTHash) == 0:
		l.why = errors.New("no user with a password")
	default:
		if wait := s.resp.guesses.allow(l.now, user.Name, s.resp.source.Addr()); wait > 0 {
			l.why = fmt.Errorf("too many wrong passwords; the next try counts in %v", wait.Round(time.Second))
			break
		}
		l.user = user
		return eap.Secret(user.NTHash), true
	}
	return nil, false
}

// handleLogin answers an IKE_AUTH request after the first one.
func (s *Session) handleLogin(now time.Time, sa *ikeSA, ps []message.Payload) ([]message.Payload, func()) {
	l := s.login
	if l.msk != nil {
		return s.finishLogin(now, sa, ps)
	}
	e, ok := message.Find[*message.EAP](ps)
	if !ok {
		return s.fatal(now, refuse(message.InvalidSyntax, "no EAP payload"))
	}
	l.now = now
	next, done, err := l.server.Receive(e.Message)
	reply := []message.Payload{&message.EAP{Message: next}}
	switch {
	case l.refused && err != nil:
		err = eap.ErrRefused
	case l.server.Refused():
		// Some say nothing more once they know.
		l.refused = true
		s.expire = now.Add(halfOpenLifetime)
		s.loginRefused(l.server.Tried(), cmp.Or(l.why, eap.ErrRefused))
	case err != nil:
		s.loginRefused(l.server.Tried(), err)
	}
	if err != nil {
		// Whoever does not read one of the two understands the other.
		end, after := s.fatal(now, refuse(message.AuthenticationFailed, "%q: %w", l.server.Tried(), err))
		return append(reply, end...), after
	}
	if done {
		l.msk = Secret(l.server.MSK())
	}
	return reply, nil
}

// loginAbandoned ends a login that the initiator gives up, which it says in an
// exchange of its own (RFC 7296, Section 2.21.2).
func (s *Session) loginAbandoned(now time.Time, ps []message.Payload) ([]message.Payload, func()) {
	var err error
	if n := message.FindError(ps); n != nil {
		err = &NotifyError{n.NotifyType}
	}
	return nil, func() { s.close(now, err) }
}

// finishLogin takes the initiator's AUTH and gives ours.
func (s *Session) finishLogin(now time.Time, sa *ikeSA, ps []message.Payload) ([]message.Payload, func()) {
	l := s.login
	a, ok := message.Find[*message.Auth](ps)
	if !ok {
		return s.fatal(now, refuse(message.InvalidSyntax, "no AUTH payload"))
	}
	if err := s.mskProven(sa, a, true); err != nil {
		s.loginRefused(l.server.User(), err)
		return s.fatal(now, refuse(message.AuthenticationFailed, "%q: %w", l.server.User(), err))
	}
	s.resp.guesses.succeeded(now, l.user.Name, s.resp.source.Addr())
	s.remote = userIdentity(l.server.User())
	reply := []message.Payload{&message.Auth{Method: message.AuthSharedKey, Data: s.mskProof(sa, false)}}
	reply = s.admit(now, sa, l.user, l.request, reply)
	s.login = nil
	return reply, nil
}

// userIdentity is the identity that EAP has proven, in place of IDi.
func userIdentity(name string) Identity {
	name = strings.ToLower(name)
	if id, err := ParseIdentity(name); err == nil {
		return id
	}
	return Identity{Type: IDKeyID, Data: []byte(name)}
}

func (s *Session) loginRefused(name string, err error) {
	s.c.Logger.LogAttrs(context.Background(), slog.LevelInfo, "login refused",
		slog.String("user", name), slog.String("source", s.resp.source.Addr().String()), slog.Any("err", err))
}

// startLogin prepares what follows the first IKE_AUTH request.
func (s *Session) startLogin(r *request, id *message.ID) {
	p := &eap.Peer{Name: s.ini.Login.Name, Password: eap.Secret(s.ini.Login.Password), Random: s.rand.r}
	s.login = &loginState{idi: id, first: r, peer: p}
}

// loginResponse takes a response to IKE_AUTH where we log in.
func (s *Session) loginResponse(now time.Time, sa *ikeSA, ps []message.Payload, rtt time.Duration) {
	l := s.login
	refused := message.FindError(ps)
	switch {
	case l.idr == nil:
		id := findID(ps, message.TypeIDr)
		auth, _ := message.Find[*message.Auth](ps)
		if refused != nil && (id == nil || auth == nil) {
			s.close(now, &NotifyError{refused.NotifyType})
			return
		}
		if id == nil {
			s.farewell(now, sa, message.InvalidSyntax, message.ErrSyntax)
			return
		}
		if auth == nil {
			// RFC 5998 lets methods stand alone that nobody can guess passwords
			// from. This one is not among them.
			s.farewell(now, sa, message.AuthenticationFailed, fmt.Errorf("it asks for the password without a certificate: %w", ErrAuthentication))
			return
		}
		// Before anything of the password leaves.
		if err := s.checkResponder(now, sa, id, auth, ps); err != nil {
			s.farewell(now, sa, message.AuthenticationFailed, err)
			return
		}
		l.idr = id
	case l.msk != nil:
		auth, ok := message.Find[*message.Auth](ps)
		switch {
		case !ok && refused != nil:
			s.close(now, &NotifyError{refused.NotifyType})
		case !ok:
			s.farewell(now, sa, message.InvalidSyntax, message.ErrSyntax)
		default:
			if err := s.mskProven(sa, auth, false); err != nil {
				s.farewell(now, sa, message.AuthenticationFailed, err)
				return
			}
			s.login = nil
			s.takeFirstChild(now, sa, l.first, l.idr, ps, rtt)
		}
		return
	}
	e, ok := message.Find[*message.EAP](ps)
	if !ok && refused != nil {
		s.close(now, &NotifyError{refused.NotifyType})
		return
	}
	if !ok {
		s.farewell(now, sa, message.InvalidSyntax, fmt.Errorf("it asks for no password: %w", message.ErrSyntax))
		return
	}
	answer, done, err := l.peer.Receive(e.Message)
	switch {
	case errors.Is(err, ErrLogin), errors.Is(err, ErrLoginMethod):
		s.close(now, err) // the responder has ended it
	case errors.Is(err, eap.ErrProof):
		s.farewell(now, sa, message.AuthenticationFailed, fmt.Errorf("%w: %w", err, ErrAuthentication))
	case err != nil:
		s.farewell(now, sa, message.InvalidSyntax, err)
	case done:
		l.msk = Secret(l.peer.MSK())
		s.send(now, sa, &request{kind: reqAuth}, []message.Payload{
			&message.Auth{Method: message.AuthSharedKey, Data: s.mskProof(sa, true)},
		})
	default:
		s.send(now, sa, &request{kind: reqAuth}, []message.Payload{&message.EAP{Message: answer}})
	}
}
