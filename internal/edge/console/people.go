package console

import (
	"net/http"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast"
)

type peoplePage struct {
	shell
	Users   []User
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
	if !known {
		u = User{Name: name, Created: v.At}
	}
	was := u.Role
	problem := checkUserName(name)
	if problem == nil {
		u.Role, problem = parseRole(r.PostFormValue("role"))
	}
	if problem == nil && (password != "" || !known) {
		u.Password, problem = HashPassword(password)
	}
	if problem == nil && was == Administrator && u.Role != Administrator {
		problem = s.lastAdministrator(r, name)
	}
	if problem != nil {
		return s.showPeople(w, r, v, http.StatusBadRequest, problem)
	}
	if err := s.Accounts.PutUser(r.Context(), u, v.User.Name); err != nil {
		return err
	}
	http.Redirect(w, r, "/people?done=put", http.StatusSeeOther)
	return nil
}

func (s *Console) removePerson(w http.ResponseWriter, r *http.Request, v *visit) error {
	name := r.PathValue("name")
	if err := s.lastAdministrator(r, name); err != nil {
		return s.showPeople(w, r, v, http.StatusBadRequest, err)
	}
	if err := s.Accounts.DeleteUser(r.Context(), name, v.User.Name); err != nil {
		return err
	}
	http.Redirect(w, r, "/people?done=removed", http.StatusSeeOther)
	return nil
}

// lastAdministrator refuses to take the last administrator away: nobody could
// then let anybody in.
func (s *Console) lastAdministrator(r *http.Request, name string) error {
	users, err := s.Accounts.Users(r.Context())
	if err != nil {
		return err
	}
	if slices.ContainsFunc(users, func(u User) bool { return u.Role == Administrator && u.Name != name }) {
		return nil
	}
	return &holdfast.Error{Kind: holdfast.Conflict, What: "the last administrator stays one", Do: "make somebody else an administrator first"}
}

func (s *Console) account(w http.ResponseWriter, r *http.Request, v *visit) error {
	p := accountPage{shell: s.shell(v, "Your account", "")}
	p.Done = r.URL.Query().Get("done")
	return s.render(w, http.StatusOK, accountView(p))
}

// changePassword asks for the old password, if there is one: a session left
// open must not be enough to take an account over.
func (s *Console) changePassword(w http.ResponseWriter, r *http.Request, v *visit) error {
	refuse := func(status int, problem string) error {
		return s.render(w, status, accountView(accountPage{s.shell(v, "Your account", ""), problem}))
	}
	if !s.guesses.allow(v.User.Name, r.RemoteAddr, v.At) {
		return refuse(http.StatusTooManyRequests, "Too many attempts. Wait half a minute and try again.")
	}
	if v.User.Password != "" && !s.guesses.check(v.User.Password, r.PostFormValue("old")) {
		return refuse(http.StatusForbidden, "That is not your present password.")
	}
	hash, err := HashPassword(r.PostFormValue("password"))
	if err != nil {
		return refuse(http.StatusBadRequest, title(err.Error())+".")
	}
	u := v.User
	u.Password = hash
	if err := s.Accounts.PutUser(r.Context(), u, v.User.Name); err != nil {
		return err
	}
	http.Redirect(w, r, "/account?done=password", http.StatusSeeOther)
	return nil
}

// meaning says what a role may do.
func (r Role) meaning() string {
	return map[Role]string{
		Viewer:        "sees the fleet, rollouts, content and the record",
		Analyst:       "also sees findings, and may halt",
		Publisher:     "also approves releases of others",
		Operator:      "also pauses, resumes, and takes part in overrides",
		Administrator: "also decides who may sign in",
	}[r]
}

var peopleResults = map[string]string{"put": "Saved.", "removed": "Removed, and signed out everywhere."}

var accountResults = map[string]string{
	"signed-in": "You are signed in. Set a password now: the link does not work twice.",
	"password":  "Your password is set.",
}
