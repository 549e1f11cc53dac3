package site

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
)

// Page is what a new web server shows.
func Page() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html>\n<title>Welcome</title>\n<h1>It works.</h1>\n<p>This site has no content yet.</p>\n")
	})
}

// Open makes a site of what a setting says: the path of a folder of static files,
// or the URL, http or https, of a web server that is asked in the visitor's place.
// Folders are not listed and names that begin with a dot are not shown, but
// .well-known (RFC 8615). logger hears of what the web server does wrong; nil
// discards. Closing the closer lets go of the folder.
func Open(what string, logger *slog.Logger) (http.Handler, io.Closer, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if strings.Contains(what, "://") {
		u, err := url.Parse(what)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("site %q is no URL: %w", what, err)
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
			return nil, nil, fmt.Errorf("site %q is not a URL such as http://127.0.0.1:8080", what)
		}
		return proxied(u, logger), nopCloser{}, nil
	}
	root, err := os.OpenRoot(what)
	if err != nil {
		return nil, nil, fmt.Errorf("site: %w", err)
	}
	return http.FileServerFS(folder{root.FS()}), root, nil
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

// A folder is one of static files. Links do not lead out of it.
type folder struct{ fs.FS }

// Open implements fs.FS. What is not to be seen does not exist.
func (f folder) Open(name string) (fs.File, error) {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." && part != ".well-known" {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
	}
	file, err := f.FS.Open(name)
	if err != nil {
		// A link that leads out, or a file without leave to read it.
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		index, indexErr := f.FS.Open(strings.TrimPrefix(name+"/index.html", "./"))
		if indexErr == nil {
			return file, index.Close()
		}
		err = fs.ErrNotExist
	}
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = fs.ErrNotExist // a FIFO would keep the visitor waiting
	}
	if err != nil {
		file.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return file, nil
}

// proxied asks another web server in the visitor's place.
func proxied(to *url.URL, logger *slog.Logger) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			logger.LogAttrs(r.Context(), slog.LevelWarn, "site not reached", slog.String("site", to.Host), slog.Any("err", err))
			http.Error(w, http.StatusText(http.StatusBadGateway), http.StatusBadGateway)
		},
	}
}
