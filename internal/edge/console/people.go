package console

import (
	"net/http"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast"
)

type peoplePage struct {
	shell
	Users   []holdfast.User
	Problem string
}

type accountPage struct {
	shell
	Problem string
}

func (s *Console) people(w http.ResponseWriter, r *http.Request, v *visit) error {
	return s.showPeople(w, r, v, http.StatusOK, nil)
}

func (s *Console) showPeople(w http.ResponseWriter, r *http.Request, v *visit, status int, problem error) error {
	users, err := s.Accounts.Users(r.Context())
	if err != nil {
		return err
	}
	p := peoplePage{shell: s.shell(v, "People", "people"), Users: users}
	p.Done = r.URL.Query().Get("done")
	if problem != nil {
		p.Problem = title(problem.Error()) + "."
	}
	return s.render(w, status, peopleView(p))
}

// putPerson adds a person, or changes one's role or password.
func (s *Console) putPerson(w http.ResponseWriter, r *http.Request, v *visit) error {
	name, password := strings.TrimSpace(r.PostFormValue("name")), r.PostFormValue("password")
	u, err := s.Accounts.User(r.Context(), name)
	known := err == nil
	if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
		return err
	}
	role, problem := parseRole(r.PostFormValue("role"))
	if problem == nil {
		problem = checkUserName(name)
	}
	if problem == nil && (password != "" || !known) {
		problem = checkPassword(password)
	}
	if problem == nil && known && role != holdfast.Administrator {
		problem = s.lastAdministrator(r, u)
	}
	if problem != nil {
		return s.showPeople(w, r, v, http.StatusBadRequest, problem)
	}
	if !known {
		err = s.Accounts.CreateUser(r.Context(), holdfast.User{Name: name, Org: s.Org, Role: role, Created: v.At}, password, v.User.Name)
	} else {
		u.Role = role
		err = s.Accounts.UpdateUser(r.Context(), u, v.User.Name)
		if err == nil && password != "" {
			err = s.Accounts.SetPassword(r.Context(), name, password, v.User.Name)
		}
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/people?done=put", http.StatusSeeOther)
	return nil
}

// setAccess lets a person in again, or keeps one out from now on.
func (s *Console) setAccess(w http.ResponseWriter, r *http.Request, v *visit) error {
	u, err := s.Accounts.User(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	u.Disabled = r.PostFormValue("access") != "open"
	if u.Disabled {
		if err := s.lastAdministrator(r, u); err != nil {
			return s.showPeople(w, r, v, http.StatusBadRequest, err)
		}
	}
	if err := s.Accounts.UpdateUser(r.Context(), u, v.User.Name); err != nil {
		return err
	}
	http.Redirect(w, r, "/people?done=put", http.StatusSeeOther)
	return nil
}

// lastAdministrator refuses to take the last administrator away: nobody could
// then let anybody in.
func (s *Console) lastAdministrator(r *http.Request, u holdfast.User) error {
	if u.Role != holdfast.Administrator {
		return nil
	}
	users, err := s.Accounts.Users(r.Context())
	if err != nil {
		return err
	}
	if slices.ContainsFunc(users, func(o holdfast.User) bool {
		return o.Role == holdfast.Administrator && !o.Disabled && o.Name != u.Name
	}) {
		return nil
	}
	return &holdfast.Error{Kind: holdfast.Conflict, What: "the last administrator stays one", Do: "make somebody else an administrator first"}
}

func (s *Console) account(w http.ResponseWriter, r *http.Request, v *visit) error {
	p := accountPage{shell: s.shell(v, "Your account", "")}
	p.Done = r.URL.Query().Get("done")
	return s.render(w, http.StatusOK, accountView(p))
}

// changePassword asks for the present password: a session left open must not be
// enough to take an account over. All other sessions end.
func (s *Console) changePassword(w http.ResponseWriter, r *http.Request, v *visit) error {
	refuse := func(status int, problem string) error {
		return s.render(w, status, accountView(accountPage{s.shell(v, "Your account", ""), problem}))
	}
	if !s.guesses.allow(v.User.Name, r.RemoteAddr, v.At) {
		return refuse(http.StatusTooManyRequests, "Too many attempts. Wait half a minute and try again.")
	}
	if err := checkPassword(r.PostFormValue("password")); err != nil {
		return refuse(http.StatusBadRequest, title(err.Error())+".")
	}
	_, err := s.Accounts.CheckPassword(r.Context(), v.User.Name, r.PostFormValue("old"))
	if err != nil && holdfast.KindOf(err) == holdfast.Denied {
		return refuse(http.StatusForbidden, "That is not your present password. If you have none, ask an administrator for a new one.")
	}
	if err == nil {
		err = s.Accounts.SetPassword(r.Context(), v.User.Name, r.PostFormValue("password"), v.User.Name)
	}
	if err != nil {
		return err
	}
	return s.begin(w, r, v.User.Name, "/account?done=password")
}

var peopleResults = map[string]string{"put": "Saved."}

var accountResults = map[string]string{"password": "Your password is set, and every other session has ended."}
