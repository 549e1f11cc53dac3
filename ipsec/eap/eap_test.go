package eap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 2759, Section 9.2, and RFC 3079, Section 3.5.3.
func TestVectors(t *testing.T) {
	server, peer := unhex(t, "5b5d7c7d7b3f2f3e3c2c602132262628"), unhex(t, "21402324255e262a28295f2b3a337c7e")
	for _, name := range []string{"User", `DOMAIN\User`} {
		if c := challengeHash(peer, server, name); !bytes.Equal(c, unhex(t, "d02e4386bce91226")) {
			t.Fatalf("challenge for %s: %x", name, c)
		}
	}
	hash := NTHash(Secret("clientPass"))
	if !bytes.Equal(hash, unhex(t, "44ebba8d5312b8d611474411f56989ae")) {
		t.Fatalf("password hash %x", hash)
	}
	c := challengeHash(peer, server, "User")
	r := ntResponse(c, hash)
	if !bytes.Equal(r, unhex(t, "82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df")) {
		t.Fatalf("NT-Response %x", r)
	}
	if s := authenticatorResponse(hash, r, c); s != "S=407A5589115FD0D6209F510FE9C04566932CDA56" {
		t.Fatalf("authenticator response %s", s)
	}
	msk := sessionKey(hash, r)
	// The server's send key is the second of the two.
	if len(msk) != MSKLen || !bytes.Equal(msk[16:32], unhex(t, "8b7cdc149b993a1ba118cb153f56dccb")) {
		t.Fatalf("key %x", []byte(msk))
	}
}

func newServer() *Server {
	return &Server{Name: "gateway", Hash: func(name string) (Secret, bool) {
		return NTHash(Secret("päss")), name == "carol"
	}}
}

// talk carries packets until both ends are done or nothing is left to say.
func talk(s *Server, p *Peer) (packets int, serverErr, peerErr error) {
	b := s.Start()
	for serverDone := false; ; packets++ {
		answer, done, err := p.Receive(b)
		if done || answer == nil {
			return packets, serverErr, err
		}
		if serverDone {
			return packets, serverErr, errors.New("the peer talks on")
		}
		b, serverDone, serverErr = s.Receive(answer)
	}
}

func TestConversation(t *testing.T) {
	for _, tt := range []struct {
		what     string
		name     string
		password string
		ok       bool
	}{
		{"right", "carol", "päss", true},
		{"with a domain", `HOME\carol`, "päss", true},
		{"wrong password", "carol", "pass", false},
		{"unknown name", "mallory", "päss", false},
		{"empty", "", "", false},
	} {
		s, p := newServer(), &Peer{Name: tt.name, Password: Secret(tt.password)}
		n, serverErr, peerErr := talk(s, p)
		switch {
		case tt.ok:
			if serverErr != nil || peerErr != nil || len(p.MSK()) != MSKLen || !bytes.Equal(s.MSK(), p.MSK()) || s.User() != "carol" {
				t.Errorf("%s: %v, %v, user %q", tt.what, serverErr, peerErr, s.User())
			}
		case !errors.Is(serverErr, ErrRefused) || !errors.Is(peerErr, ErrRefused) || s.MSK() != nil || p.MSK() != nil || s.User() != "":
			t.Errorf("%s: %v, %v", tt.what, serverErr, peerErr)
		}
		if n != 3 {
			t.Errorf("%s: %d answers, want 3 whatever the outcome", tt.what, n)
		}
		// No second attempt with the same Server.
		if _, done, err := s.Receive(Packet{Code: CodeResponse, ID: s.id, Type: TypeIdentity}.Append(nil)); !done || err == nil {
			t.Errorf("%s: the server goes on", tt.what)
		}
	}
}

// A server that does not know the password can say neither Success nor the
// authenticator's response.
func TestFalseServer(t *testing.T) {
	challenge := Packet{Code: CodeRequest, ID: 1, Type: TypeMSCHAPv2,
		Data: operation(opChallenge, 1, []byte{16}, make([]byte, 16), []byte("x"))}.Append(nil)
	for what, b := range map[string][]byte{
		"success at once": Packet{Code: CodeSuccess, ID: 1}.Append(nil),
		"wrong proof": Packet{Code: CodeRequest, ID: 2, Type: TypeMSCHAPv2,
			Data: operation(opSuccess, 1, []byte("S=0000000000000000000000000000000000000000"))}.Append(nil),
		"no proof": Packet{Code: CodeRequest, ID: 2, Type: TypeMSCHAPv2, Data: operation(opSuccess, 1)}.Append(nil),
	} {
		p := &Peer{Name: "carol", Password: Secret("päss")}
		if _, _, err := p.Receive(challenge); err != nil {
			t.Fatal(err)
		}
		if _, done, err := p.Receive(b); !done || !errors.Is(err, ErrProof) || p.MSK() != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A peer asks for MSCHAPv2 instead of what it does not know.
func TestNak(t *testing.T) {
	p := &Peer{Name: "carol"}
	b, done, err := p.Receive(Packet{Code: CodeRequest, ID: 7, Type: 13}.Append(nil))
	if want := []byte{2, 7, 0, 6, 3, 26}; done || err != nil || !bytes.Equal(b, want) {
		t.Fatalf("%x, %v, %v", b, done, err)
	}
	if _, done, err := p.Receive(Packet{Code: CodeFailure, ID: 7}.Append(nil)); !done || !errors.Is(err, ErrMethod) {
		t.Fatalf("%v, %v", done, err)
	}
}

// FuzzPackets gives both ends any packets: nothing panics, nobody gets a key, and
// conversations end.
func FuzzPackets(f *testing.F) {
	s := newServer()
	p := &Peer{Name: "carol", Password: Secret("päss")}
	for b := s.Start(); b != nil; {
		f.Add(b)
		answer, done, _ := p.Receive(b)
		if done {
			break
		}
		f.Add(answer)
		b, _, _ = s.Receive(answer)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := Parse(b); err == nil && !bytes.Equal(k.Append(nil), b) {
			t.Fatalf("%x is not written as it was read", b)
		}
		s, p := newServer(), &Peer{Name: "carol", Password: Secret("päss")}
		s.Start()
		for i := range 2 * maxRounds {
			if len(b) > 1 {
				b[1] = s.id
			}
			_, done, _ := s.Receive(b)
			_, done2, _ := p.Receive(b)
			if i > maxRounds && (!done || !done2) {
				t.Fatal("a conversation without end")
			}
		}
		if s.MSK() != nil || p.MSK() != nil {
			t.Fatal("a key for anyone")
		}
	})
}
