from django.contrib import admin
from django.urls import include, path

from project import views

urlpatterns = [
    path("", views.home, name="home"),
    path("trigger", views.trigger, name="trigger"),
    path("updates", views.home_updates, name="home-updates"),
    path("runs/<str:run_id>", views.run, name="run"),
    path("runs/<str:run_id>/updates", views.run_updates, name="run-updates"),
    path("runs/<str:run_id>/cancel", views.cancel, name="cancel"),
    path("admin/", admin.site.urls),
    path("", include("realtime_runs.urls")),
]
