package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/ipsec/eap"
	"github.com/godwit-net/godwit/ipsec/ike"
)

func newServerUser() *cobra.Command {
	return group("user", "Let IKEv2 clients in that are not godwit", newServerUserAdd(), newServerUserRenew(), newServerUserProfile())
}

func newServerUserAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a user of an IKEv2 client and print what to enter there",
		Long: `Makes a user of an IKEv2 client that is not godwit, such as those built into
phones, and prints what has to be entered there. The table [ikev2] in server.toml
lets such clients in. Remove a user with "godwit server remove NAME".

With --password the user logs in by name and password, as Windows, macOS, iOS and
Android can (EAP-MSCHAPv2); the server then needs a certificate in that table. The
password is kept as its NT hash.`,
		Example: `  godwit server user add carol --password
  godwit server user add carol --id carol@example.org
  godwit server user add carol --password --secret-stdin < password.txt`,
		Args: takes("NAME"),
	}
	dir := dirFlag(cmd, "server")
	id := cmd.Flags().String("id", "", "what the client calls itself (default NAME)")
	certificate := cmd.Flags().Bool("certificate", false, "the user proves itself by a certificate that bears the identity, instead of a shared secret")
	password := cmd.Flags().Bool("password", false, "the user logs in by its identity and a password, instead of a shared secret")
	stdin := cmd.Flags().Bool("secret-stdin", false, "read the secret or the password from standard input instead of making one")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := loadServer(dir)
		if err != nil {
			return err
		}
		identity := args[0]
		if *id != "" {
			identity = *id
		}
		parsed, err := ike.ParseIdentity(identity)
		if err != nil {
			return usage(cmd, "wrong identity: "+err.Error(), "write a name, a mail address or an IP address")
		}
		if *certificate && (*stdin || *password) {
			return usage(cmd, "--certificate together with a secret or a password", "give one of them")
		}
		secret := rand.Text()
		if *stdin && !*certificate {
			if secret, err = secretFrom(cmd.InOrStdin()); err != nil {
				return err
			}
		}
		record := config.ClientRecord{Name: args[0], Identity: parsed.String(), Certified: *certificate}
		switch {
		case *certificate:
			secret = ""
		case *password:
			record.NTHash = eap.NTHash(eap.Secret(secret))
		default:
			record.PSK = secret
		}
		r, err := d.AddUser(record, time.Now())
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		server := d.Config.Endpoint
		if k := d.Config.IKEv2; k != nil {
			server = k.Identity
		}
		who, what := "local identity", "shared secret"
		if *password {
			who, what = "user name", "password"
		}
		fmt.Fprintf(out, "server and its identity: %s\n%s: %s\n", server, who, r.Identity)
		if secret != "" && !*stdin {
			fmt.Fprintf(out, "%s: %s\n", what, secret)
		}
		switch {
		case *password && !takesLogins(d):
			fmt.Fprintf(cmd.ErrOrStderr(), "godwit: the server has no certificate to prove itself by yet: run godwit server certificate\n")
		case d.Config.IKEv2 == nil:
			fmt.Fprintf(cmd.ErrOrStderr(), "godwit: the server does not let such clients in yet: add the line [ikev2] at the end of server.toml and start it again\n")
		}
		return nil
	}
	return cmd
}

func newServerUserRenew() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "renew NAME",
		Short: "Give a user another password or shared secret",
		Long: `Gives a user another password or shared secret, of the kind that it has, and prints
it. A running server takes the old one no more, and ends the user's connection
within ten seconds.`,
		Example: `  godwit server user renew carol
  godwit server user renew carol --secret-stdin < password.txt`,
		Args: takes("NAME"),
	}
	dir := dirFlag(cmd, "server")
	stdin := cmd.Flags().Bool("secret-stdin", false, "read the secret or the password from standard input instead of making one")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := loadServer(dir)
		if err != nil {
			return err
		}
		secret := rand.Text()
		if *stdin {
			if secret, err = secretFrom(cmd.InOrStdin()); err != nil {
				return err
			}
		}
		what := "shared secret"
		err = d.RenewUser(args[0], func(r *config.ClientRecord) {
			if r.NTHash == nil {
				r.PSK = secret
				return
			}
			what, r.NTHash = "password", eap.NTHash(eap.Secret(secret))
		})
		if err != nil {
			return err
		}
		if !*stdin {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", what, secret)
		}
		return nil
	}
	return cmd
}

// secretFrom reads a secret: the first line.
func secretFrom(r io.Reader) (string, error) {
	const most = 1024
	line, err := bufio.NewReader(io.LimitReader(r, most+1)).ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	if err != nil && err != io.EOF || len(line) < 8 || len(line) > most {
		return "", &config.Error{What: "no secret of 8 to 1024 characters", Where: "standard input", Do: "give it in one line", Err: err}
	}
	return line, nil
}
