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
	"github.com/godwit-net/godwit/ipsec/ike"
)

func newServerUser() *cobra.Command {
	return group("user", "Let IKEv2 clients in that are not godwit", newServerUserAdd())
}

func newServerUserAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a user of an IKEv2 client and print what to enter there",
		Long: `Makes a user of an IKEv2 client that is not godwit, such as those built into
phones, and prints what has to be entered there. The table [ikev2] in server.toml
lets such clients in. Remove a user with "godwit server remove NAME".`,
		Args: takes("NAME"),
	}
	dir := dirFlag(cmd, "server")
	id := cmd.Flags().String("id", "", "what the client calls itself (default NAME)")
	certificate := cmd.Flags().Bool("certificate", false, "the user proves itself by a certificate that bears the identity, instead of a shared secret")
	stdin := cmd.Flags().Bool("secret-stdin", false, "read the secret from standard input instead of making one")
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
		if *certificate && *stdin {
			return usage(cmd, "both --certificate and --secret-stdin", "give one of them")
		}
		secret := rand.Text()
		if *certificate {
			secret = ""
		} else if *stdin {
			if secret, err = secretFrom(cmd.InOrStdin()); err != nil {
				return err
			}
		}
		r, err := d.AddUser(config.ClientRecord{Name: args[0], Identity: parsed.String(), PSK: secret, Certified: *certificate}, time.Now())
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		server := d.Config.Endpoint
		if k := d.Config.IKEv2; k != nil {
			server = k.Identity
		}
		fmt.Fprintf(out, "server and its identity: %s\nlocal identity: %s\n", server, r.Identity)
		if secret != "" && !*stdin {
			fmt.Fprintf(out, "shared secret: %s\n", secret)
		}
		if d.Config.IKEv2 == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "godwit: the server does not let such clients in yet: add the line [ikev2] at the end of server.toml and start it again\n")
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
