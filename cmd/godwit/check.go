package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the settings, keys and clients without running anything",
		Long: `Checks the settings of the server and the client, those that there are, as run
would take them: the files, the variables GODWIT_SERVER_… and GODWIT_CLIENT_… of the
environment, keys, certificates, and the server's clients.`,
		Args: takes(),
	}
	dir := cmd.Flags().String("dir", "", "folder to check (default the server's and the client's, those that there are)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		found := 0
		for _, role := range []string{"server", "client"} {
			path := *dir
			if path == "" {
				var err error
				if path, err = config.DefaultDir(role); err != nil {
					return err
				}
			}
			good, err := checkDir(role, path)
			if errors.Is(err, config.ErrNotSetUp) {
				continue
			}
			if err != nil {
				return err
			}
			found++
			fmt.Fprintln(cmd.OutOrStdout(), good)
		}
		if found == 0 {
			where := *dir
			if where == "" {
				where = "~/.config/godwit"
			}
			return &config.Error{What: "neither a server nor a client is set up here", Where: where, Do: "run godwit server init or godwit client join, or name the folder with --dir"}
		}
		return nil
	}
	return cmd
}

// checkDir checks the folder of a role and says what is good.
func checkDir(role, path string) (string, error) {
	dir := func() (string, error) { return path, nil }
	quiet := slog.New(slog.DiscardHandler)
	if role == "client" {
		d, err := loadClient(dir)
		if err != nil {
			return "", err
		}
		if _, err := clientConfig(d, d.Config.Encapsulations, quiet); err != nil {
			return "", err
		}
		if _, err := forwardRules(d); err != nil {
			return "", err
		}
		if err := checkTun(d); err != nil {
			return "", err
		}
		if _, err := remoteRules(d); err != nil {
			return "", err
		}
		if _, err := bypassOf(d); err != nil {
			return "", err
		}
		return fmt.Sprintf("client %s is in order: %s of %s", path, d.Config.Name, d.Config.Server), nil
	}
	d, err := loadServer(dir)
	if err != nil {
		return "", err
	}
	if _, err := guestsConfig(d, quiet); err != nil {
		return "", err
	}
	_, site, err := openSite(d, quiet)
	if err != nil {
		return "", err
	}
	_ = site.Close() // of a folder that was read alone
	records, err := d.Clients()
	if err != nil {
		return "", err
	}
	owner := map[string]string{} // of keys and addresses
	for _, r := range records {
		for _, thing := range []string{string(r.PublicKey), r.Inner4.String(), r.Inner6.String()} {
			if other, taken := owner[thing]; taken && thing != "" {
				return "", &config.Error{What: "has the same key or inner address as client " + other, Where: "client " + r.Name, Do: "remove one of them and invite it again"}
			}
			owner[thing] = r.Name
		}
		for _, a := range []struct {
			pool  netip.Prefix
			inner netip.Addr
		}{{d.Config.Pool4, r.Inner4}, {d.Config.Pool6, r.Inner6}} {
			if !a.pool.Contains(a.inner) || a.inner == config.ServerAddress(a.pool) {
				return "", &config.Error{What: a.inner.String() + " is not a client's address in " + a.pool.String(), Where: "client " + r.Name, Do: "remove it and invite it again"}
			}
		}
	}
	return fmt.Sprintf("server %s is in order: %s, %d clients", path, d.Config.Endpoint, len(records)), nil
}
