package site

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// stall is how long a visitor of the site may take none of an answer, or send none
// of a request's body, before it is left. A bound on the whole would cut large
// files off.
const stall = 60 * time.Second

// piece is what has to be taken within that time, in bytes: a visitor with 1 KiB/s
// is a slow one, and not one that has gone.
const piece = 64 << 10

// serve answers a request of the site's.
func serve(content http.Handler, w http.ResponseWriter, r *http.Request, control *http.ResponseController) {
	p := &patient{ResponseWriter: w, control: control}
	p.wait()
	if r.Body == nil || r.Body == http.NoBody {
		content.ServeHTTP(p, r)
		return
	}
	b := &patientBody{ReadCloser: r.Body, control: control}
	// The server looks at the body of its own request again.
	own := *r
	own.Body = b
	content.ServeHTTP(p, &own)
	if !b.ended {
		// The server reads on for a while, for the sake of the next request.
		_ = control.SetReadDeadline(time.Now().Add(stall))
	}
}

// A patient response lasts as long as the visitor takes some of it now and then.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

// wait fails for a connection that was taken over, which is the handler's then.
func (p *patient) wait() { _ = p.control.SetWriteDeadline(time.Now().Add(stall)) }

// Write implements http.ResponseWriter.
func (p *patient) Write(b []byte) (n int, err error) {
	for {
		p.wait()
		k, err := p.ResponseWriter.Write(b[n:min(len(b), n+piece)])
		if n += k; err != nil || n == len(b) {
			return n, err
		}
	}
}

// ReadFrom lets the system copy files by itself, in pieces that a deadline can be
// set for.
func (p *patient) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		p.wait()
		k, err := io.CopyN(p.ResponseWriter, r, piece)
		n += k
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
	}
}

// Unwrap is for http.ResponseController.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

type patientBody struct {
	io.ReadCloser
	control *http.ResponseController
	ended   bool
}

// Read implements io.Reader.
func (p *patientBody) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(stall))
	n, err := p.ReadCloser.Read(b)
	if err != nil {
		p.ended = true
		// A deadline would end the answer too: the server reads on, to learn when the
		// visitor goes.
		_ = p.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
